"""Which consecutive blocks of a decoder a process has, and its way to the stages before and after.

The first stage has the embeddings, the last the final norm and the head. With a tied head both have the matrix, under
the embedding's name, and sum its gradients every step, so that both take the same step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from training.model.block import Block
from training.model.config import ModelConfig
from training.optimizers import local

if TYPE_CHECKING:
    from training.model.decoder import Decoder

_TIED = "embed_tokens.weight"
_FIRST, _LAST = ["embed_tokens", "embed_positions"], ["norm", "lm_head"]  # what only one end has


@dataclass
class Stage:
    """One of ``count`` stages, and what it has to know of the whole model."""

    index: int
    count: int
    group: Any = None  # of the processes that have the stages of one model, in their order
    dtype: torch.dtype = torch.float32  # of the streams that are sent
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    arrived: Tensor | None = None  # the stream that the next forward begins with, where there is a stage before
    blocks: int = 0  # of the whole model
    width: int = 0  # of a stream
    products: int = 0  # weights that a token is multiplied by, of the whole model
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of its parameters
    owners: dict[str, int] = field(default_factory=dict)  # the (first) stage that has a parameter
    sending: list[Any] = field(default_factory=list)  # what is on its way, with its tensor

    @property
    def first(self) -> bool:
        """Whether it has the embeddings."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """Whether it has the head."""
        return self.index == self.count - 1

    def open(self, dtype: torch.dtype, device: torch.device) -> None:
        """Set what streams are sent as; a group's first exchange has to be one of all its processes (NCCL)."""
        self.dtype, self.device = dtype, device
        dist.all_reduce(torch.zeros((), device=device), group=self.group)

    def swap(self, out: Tensor | None, to: int | None, into: Tensor | None, source: int | None) -> Tensor | None:
        """Send ``out`` to stage ``to`` while ``into`` is filled from stage ``source``, where they are not None.

        ``into`` comes back once it is there; what is sent may still be on its way.
        """
        self.settle()
        ends = ((dist.isend, out, to), (dist.irecv, into, source))
        steps = [dist.P2POp(how, x, group=self.group, group_peer=peer) for how, x, peer in ends if x is not None]
        works = dist.batch_isend_irecv(steps) if steps else []
        if into is not None:
            works.pop().wait()  # gloo's own of what arrives, NCCL's only one of both
        self.sending = [(work, out) for work in works]
        return into

    def settle(self) -> None:
        """Wait until what was sent has gone."""
        for work, _ in self.sending:
            work.wait()
        self.sending = []

    def told(self, value: Any, device: torch.device) -> Any:
        """The last stage's value, on every stage."""
        box = [value]
        dist.broadcast_object_list(box, group=self.group, group_src=self.count - 1, device=device)
        return box[0]

    def norm(self, own: Tensor) -> Tensor:
        """The norm of all stages' gradients together, of each stage's own."""
        squares = own.double().square()
        dist.all_reduce(squares, group=self.group)
        return squares.sqrt().to(own.dtype)

    def shared(self, name: str, full: Tensor | None) -> Tensor:
        """A parameter in full, from the stage that owns it, on every stage; ``full`` is this stage's own."""
        owner = self.owners[name]
        mine = full.contiguous() if owner == self.index and full is not None else None
        box = torch.empty(self.shapes[name], device=self.device) if mine is None else mine
        dist.broadcast(box, group=self.group, group_src=owner)
        return box

    def owned(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters that no stage before has."""
        return [parameter for name, parameter in model.named_parameters() if self.owners[name] == self.index]


def of(model: nn.Module) -> Stage | None:
    """The stage that a model is, or None where it is whole."""
    found: Stage | None = getattr(model, "stage", None)
    return found


def blocks_of(model: nn.Module) -> int:
    """The blocks of a model, with those of other stages."""
    stage = of(model)
    return stage.blocks if stage else sum(isinstance(module, Block) for module in model.modules())


def shares(config: ModelConfig, vocabulary: int, count: int) -> list[range]:
    """The blocks of each stage, so that the slowest is as fast as can be: the head costs as much as some blocks.

    Costs are weights in matrix products. Raises ValueError for more stages than blocks.
    """
    if count > config.layers:
        raise ValueError(f"{config.layers} blocks cannot be cut into {count} stages")
    attention = 2 * config.width * config.head_width * (config.heads + config.key_heads)
    block = attention + (3 if config.gated else 2) * config.width * config.inner
    head = vocabulary * config.width / block

    def sizes(last: int) -> list[int]:
        each, more = divmod(config.layers - last, max(count - 1, 1))
        return [each + (index < more) for index in range(count - 1)] + [last]

    def slowest(last: int) -> float:
        return max(*sizes(last)[:-1], last + head)

    best = min(range(1, config.layers - count + 2), key=slowest) if count > 1 else config.layers
    ends = [0]
    for size in sizes(best):
        ends.append(ends[-1] + size)
    return [range(start, stop) for start, stop in pairwise(ends)]


def cut(model: Decoder, stage: Stage) -> None:
    """Leave of a whole decoder, in place, what a stage has; names stay."""
    parts = shares(model.config, model.vocabulary, stage.count)
    where = {str(block): index for index, part in enumerate(parts) for block in part}
    stage.blocks, stage.width = model.config.layers, model.config.width
    stage.products = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    for name, parameter in model.named_parameters():
        stage.shapes[name] = tuple(parameter.shape)
        head, _, rest = name.partition(".")
        stage.owners[name] = (
            where[rest.partition(".")[0]] if head == "layers" else 0 if head.startswith("embed_") else stage.count - 1
        )
    for block, index in where.items():
        if index != stage.index:
            delattr(model.layers, block)
    gone = [] if stage.first else ["embed_positions"] if stage.last and model.config.tied else _FIRST
    for name in [*gone, *([] if stage.last else _LAST)]:
        setattr(model, name, None)
    model.stage = stage


def sum_tied(model: nn.Module, stage: Stage) -> None:
    """Give both ends the sum of their gradients of a matrix that they share."""
    if stage.count == 1 or not (stage.first or stage.last) or not getattr(model, "config").tied:  # noqa: B009
        return
    gradient = model.get_parameter(_TIED).grad
    assert gradient is not None
    with torch.no_grad():
        own, other = local(gradient), stage.count - 1 - stage.index
        theirs = stage.swap(own.contiguous(), other, torch.empty_like(own), other)
        stage.settle()
        assert theirs is not None
        own.add_(theirs)
