"""The order in which the stages of a model take micro-batches: 1F1B (PipeDream-flush, arXiv:2104.04473, figure 4).

A stage takes as many micro-batches ahead as there are stages behind it, then one backward for each forward, so that
it keeps at most ``stages - index`` micro-batches' activations. Of M + S - 1 turns, S - 1 are idle. A whole model is
one stage: a forward and its backward for each micro-batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training import parallel, stages
from training.context import Context
from training.likelihood import logits_of
from training.stages import Stage

Batch = dict[str, Tensor]


class Turn(NamedTuple):
    """A forward or backward of one micro-batch: from which stage its input comes and to which its output goes."""

    forward: bool
    source: int | None
    to: int | None


def turns(index: int, count: int, batches: int) -> list[Turn]:
    """The turns of stage ``index`` of ``count`` over so many micro-batches, each kind in their order."""
    before, behind = (index - 1 if index else None), (index + 1 if index < count - 1 else None)
    there, back = Turn(True, before, behind), Turn(False, behind, before)
    ahead = min(count - 1 - index, batches)
    return [there] * ahead + [there, back] * (batches - ahead) + [back] * ahead


def _empty(context: Context, stage: Stage, batch: Batch) -> Tensor:
    """Room for the stream of a (placed) micro-batch: tensor parallelism leaves each process a part of the tokens."""
    rows, length = batch["tokens"].shape
    shape = rows, length // context.tensors, stage.width
    return torch.empty(shape, dtype=stage.dtype, device=context.device)


def accumulate(context: Context, model: nn.Module, micro: Sequence[Batch], forward: Callable[[Batch], Tensor]) -> None:
    """The gradients of all micro-batches' sum, added to the parameters'.

    ``forward(batch)`` gives the last stage's loss to minimise (a scalar), and on others what the model gives.
    """
    stage = stages.of(model)
    if stage is not None:
        _accumulate(context, model, stage, micro, forward)
        return
    for index, batch in enumerate(micro):
        parallel.sync_gradients(model, index == len(micro) - 1)
        forward(context.place(batch)).backward()


def _accumulate(
    context: Context, model: nn.Module, stage: Stage, micro: Sequence[Batch], forward: Callable[[Batch], Tensor]
) -> None:
    order = turns(stage.index, stage.count, len(micro))
    to_come = deque(context.place(batch) for batch in micro)
    begun: deque[tuple[Tensor | None, Tensor]] = deque()  # of micro-batches after their forward: what came, what went

    def room(turn: Turn | None) -> Tensor | None:
        if turn is None or turn.source is None:
            return None
        return _empty(context, stage, to_come[0]) if turn.forward else torch.empty_like(begun[0][1])

    arrived = stage.swap(None, None, room(order[0]), order[0].source)
    for turn, then in zip(order, [*order[1:], None], strict=True):
        if turn.forward:
            stage.arrived = None if arrived is None else arrived.requires_grad_()
            made = forward(to_come.popleft())
            made = made if stage.last else made.to(stage.dtype)
            begun.append((stage.arrived, made))
            out = None if stage.last else made.detach()
        else:
            came, made = begun.popleft()
            parallel.sync_gradients(model, not begun and not to_come)
            made.backward(arrived)
            out = None if came is None else came.grad
        arrived = stage.swap(out, turn.to, room(then), then.source if then else None)
    stage.settle()
    stage.arrived = None
    stages.sum_tied(model, stage)


def logits(context: Context, model: nn.Module, batch: Batch) -> Tensor | None:
    """The logits of a (placed) micro-batch, without gradients; None on stages that are not the last."""
    stage = stages.of(model)
    if stage is None:
        return logits_of(model, batch)
    into = None if stage.first else _empty(context, stage, batch)
    stage.arrived = stage.swap(None, None, into, stage.index - 1)
    made = logits_of(model, batch)
    stage.arrived = None
    if stage.last:
        return made
    stage.swap(made.to(stage.dtype), stage.index + 1, None, None)
    return None


def told(context: Context, model: nn.Module, value: Any) -> Any:
    """What the last stage knows (its losses), on every stage."""
    stage = stages.of(model)
    return value if stage is None else stage.told(value, context.device)


def say(context: Context, batches: int) -> None:
    """Log, where there are stages, which share of the time they wait at so many micro-batches a step."""
    if context.blocks is not None:
        idle = (context.blocks.count - 1) / (batches + context.blocks.count - 1)
        more = ": a smaller micro_batch makes it less" if batches < 4 * context.blocks.count else ""
        context.log(
            "%d stages take %d micro-batches a step, and wait for %.0f %% of it%s",
            *(context.blocks.count, batches, 100 * idle, more),
        )
