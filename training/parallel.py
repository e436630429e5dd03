"""Lays parallelism over a single-device model: FSDP2 shards, mixed precision, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from training import float8, stages, tensor, weights
from training.context import Context
from training.exchange import SumOfParts
from training.model.block import Block
from training.model.decoder import Decoder
from training.model.tied import Tied
from training.optimizers import local, shard_of
from training.settings import TrainerConfig

_PRODUCTS = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.higher_order.flex_attention,
)
_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16, "float8": torch.bfloat16}
SMALL = 50_000_000  # parameters up to which a model is one unit, gathered once a step


def build(
    context: Context, make: Callable[[], nn.Module], settings: TrainerConfig, fill: Callable[[nn.Module], None]
) -> nn.Module:
    """The model that ``make`` gives, laid out over the workers, its weights set by ``fill``.

    It is made without memory; ``fill(model)`` (``init_weights``, ``load_full``) sets every parameter.
    """
    with torch.device("meta"):
        model = make()
    lay(context, model, settings)
    model.to_empty(device=context.device)
    for module in model.modules():
        if isinstance(module, Tied):
            module.tie()
    fill(model)
    return model


def lay(context: Context, model: nn.Module, settings: TrainerConfig) -> nn.Module:
    """Lay a model (in place) over the context's processes: tensors split, blocks recomputed, compiled, sharded."""
    for module in model.modules():
        if isinstance(module, Decoder):
            module.spread = context.spread
            if context.blocks is not None:
                stages.cut(module, context.blocks)
            if context.tensors > 1 and context.mesh is not None:
                tensor.split(module, context.mesh["tensor"])
    if settings.precision == "float8":
        float8.check_device(f"{context.name}.precision", context.device)
        float8.convert(model)
    for module in model.modules():
        if isinstance(module, Block):
            recompute(module, settings.recompute)
    one_graph = settings.compile == "model" and context.mesh is None
    if settings.compile:
        for module in model.modules():
            if isinstance(module, Tied if one_graph else Block):
                module.compile()
    if context.mesh is not None:
        _shard(model, context, settings)
    return model


def _shard(model: nn.Module, context: Context, settings: TrainerConfig) -> None:
    """FSDP over the dimension `shard`, copies of it over `replicate` (HSDP)."""
    assert context.mesh is not None
    mesh = context.mesh["replicate", "shard"] if context.mesh["replicate"].size() > 1 else context.mesh["shard"]
    low = _LOW.get(settings.precision)
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    if context.blocks is not None:
        context.blocks.open(low or torch.float32, context.device)
    small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
    more: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": policy,
        "reshard_after_forward": not small and context.blocks is None,
    }
    # The children of a ModuleDict (actor, critic) are called on their own, so each is a unit.
    for part in model.children() if isinstance(model, nn.ModuleDict) else [model]:
        if not small:
            for module in part.modules():
                if isinstance(module, Block):
                    fully_shard(module, **more)
        fully_shard(part, **more)
    if context.device.type == "cpu":
        for unit in units(model):
            unit.set_custom_reduce_scatter(SumOfParts())


def recompute(block: nn.Module, mode: str) -> None:
    """Let a block's backward compute activations again: all of them, or all but the matrix products' outputs."""
    if mode == "none":
        return
    inner = block.forward

    def kept(_context: Any, operation: Any, *_values: Any, **_named: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in _PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE

    more: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        more["context_fn"] = partial(create_selective_checkpoint_contexts, kept)

    def forward(*values: Any, **named: Any) -> Any:
        return checkpoint(inner, *values, **more, **named) if torch.is_grad_enabled() else inner(*values, **named)

    block.forward = forward


def put_full(parameter: Tensor, value: Tensor) -> None:
    """Set a parameter (plain or sharded) to a full value that every rank has."""
    with torch.no_grad():
        local(parameter).copy_(shard_of(value.to(parameter.device, parameter.dtype), parameter))


def _own_rows(parameter: Tensor) -> tuple[int, int] | None:
    """The rows, first and past the last, that this process has of a parameter sharded by rows; else None."""
    if not isinstance(parameter, DTensor) or not all(
        type(p) is Shard or p.is_replicate() for p in parameter.placements
    ):
        return None
    if any(isinstance(p, Shard) and p.dim != 0 for p in parameter.placements):
        return None
    shape, offset = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return offset[0], offset[0] + shape[0]


def load_full(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set every parameter from full tensors by name, one at a time; of sharded ones only this process's rows are read.

    Raises KeyError for one that is missing, ValueError for one of another shape.
    """
    for name, parameter in model.named_parameters():
        if name not in state:
            raise KeyError(f"the weights have no {name}")
        if (shape := weights.shape_of(state, name)) != tuple(parameter.shape):
            raise ValueError(f"{name}: the weights have shape {shape}, the model {tuple(parameter.shape)}")
        if (rows := _own_rows(parameter)) is None:
            put_full(parameter, state[name])
            continue
        with torch.no_grad():
            parameter.to_local().copy_(weights.rows_of(state, name, *rows))  # type: ignore[attr-defined]


def autocast(context: Context, settings: TrainerConfig) -> AbstractContextManager[Any]:
    """Matrix products in bf16 or fp16 (and what float8 leaves in bf16) as set; weights and sums stay fp32."""
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast(context.device.type, dtype=_LOW[settings.precision])


def units(model: nn.Module) -> list[FSDPModule]:
    """The sharded units of a model, outermost first; none in a single process."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def sync_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward sums gradients over ranks: only a step's last micro-batch needs to.

    A stage of a pipeline, which has other micro-batches begun, also keeps its weights gathered until then.
    """
    for unit in units(model):
        unit.set_requires_gradient_sync(wanted, recurse=False)
        if stages.of(model) is not None:
            unit.set_reshard_after_backward(wanted, recurse=False)
            unit.set_is_last_backward(wanted)


@contextmanager
def gathered(model: nn.Module) -> Iterator[nn.Module]:
    """The model with all parameters in full on every rank, to generate from without collectives.

    No gradients may be wanted inside. Ranks may run different numbers of forwards.
    """
    found = units(model)
    for unit in found:
        unit.unshard()
        unit.set_reshard_after_forward(False, recurse=False)
    try:
        yield model
    finally:
        small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
        for unit in found:
            unit.set_reshard_after_forward(not small, recurse=False)
            unit.reshard()
