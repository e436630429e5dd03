"""Tensor parallelism with sequence parallelism: a decoder's matrices split over neighbouring processes.

Heads, inner layers and the vocabulary are split; between them each process holds its part of every row
(Megatron, arXiv:1909.08053 and 2205.05198). A block exchanges its rows four times in a forward and backward pass each.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from training.model.decoder import Decoder

_ROWS, _HEADS = 1, 2  # the dimensions of a row's tokens in (B, L, D), of heads in (B, L, H, E)


def split(model: Decoder, mesh: DeviceMesh) -> None:
    """Split a decoder in place over a one-dimensional mesh that its shape allows (``settings.Mesh.check``)."""
    whole = Replicate()
    plan: dict[str, ParallelStyle] = {
        "embed_tokens": RowwiseParallel(input_layouts=whole, output_layouts=Shard(_ROWS)),
        "norm": SequenceParallel(sequence_dim=_ROWS),
        "lm_head": ColwiseParallel(input_layouts=Shard(_ROWS), output_layouts=whole),
    }
    there = {name for name, _ in model.named_children()}  # a stage has not all of them
    parallelize_module(model, mesh, {name: style for name, style in plan.items() if name in there})
    for block in model.layers:
        parallelize_module(block, mesh, _block_plan(block))
    model.tie()


def _block_plan(block: nn.Module) -> dict[str, ParallelStyle]:
    """How each part of a block is split; the parts that this block has not are left out."""
    rows, whole = Shard(_ROWS), Replicate()
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": SequenceParallel(sequence_dim=_ROWS),
        "self_attn": PrepareModuleInput(input_layouts=(rows, None), desired_input_layouts=(whole, None)),
        "self_attn.o_proj": RowwiseParallel(output_layouts=rows),
        "post_attention_layernorm": SequenceParallel(sequence_dim=_ROWS),
        "mlp": PrepareModuleInput(input_layouts=(rows,), desired_input_layouts=(whole,)),
        "mlp.down_proj": RowwiseParallel(output_layouts=rows),
    }
    plan |= {f"self_attn.{name}_proj": ColwiseParallel() for name in ("q", "k", "v")}
    plan |= {f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")}
    plan |= {
        f"self_attn.{name}_norm": SequenceParallel(sequence_dim=_HEADS, use_local_output=True) for name in ("q", "k")
    }
    there = {name for name, _ in block.named_modules()}
    return {name: style for name, style in plan.items() if name in there}
