"""Context parallelism: a row's tokens over several processes, keys and values gathered for attention.

A row of L tokens is cut into 2C pieces; part c of C holds pieces c and 2C - 1 - c, so that all have as much to
attend to (zig-zag; Llama 3, arXiv:2407.21783, gathers keys and values likewise). A layer sends 2 L K E numbers
a row forward, and as many back; activations take 1/C of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from dataeng.cli import UserError


@dataclass(frozen=True)
class Spread:
    """Which part of every row this process holds."""

    part: int
    parts: int
    group: Any = None  # of the processes that hold the other parts

    def places(self, length: int, part: int | None = None) -> Tensor:
        """Where the tokens of a part (this process's by default) stand in rows of ``length`` tokens."""
        pieces = 2 * self.parts
        if length % pieces:
            raise UserError(f"mesh.context = {self.parts}: rows of {length} tokens cannot be cut into {pieces} pieces")
        held = self.part if part is None else part
        cut = torch.arange(length).view(pieces, -1)
        return torch.cat((cut[held], cut[pieces - 1 - held]))

    def all_places(self, length: int) -> Tensor:
        """Where gathered tokens stand: those of part 0, then those of part 1 …"""
        return torch.cat([self.places(length, part) for part in range(self.parts)])

    def cut(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch's tensors (B, L, …) with this part's columns; others as they are. Adds ``positions`` (B, L)."""
        batch_size, length = batch["tokens"].shape
        here = self.places(length).to(batch["tokens"].device)
        whole = {"positions": torch.arange(length, device=here.device).expand(batch_size, length)} | batch
        return {
            key: value[:, here] if value.ndim >= 2 and value.shape[1] == length else value
            for key, value in whole.items()
        }

    def gather(self, part: Tensor, dim: int) -> Tensor:
        """Every process's part, one after another along ``dim``; gradients go back to where each came from."""
        found: Tensor = _Gather.apply(part, dim, self)
        return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, dim: int, spread: Spread) -> Tensor:
        ctx.dim, ctx.spread = dim, spread
        every = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(spread.parts)]
        dist.all_gather(every, part.contiguous(), group=spread.group)
        return torch.cat(every, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        whole = gradient.contiguous()
        dist.all_reduce(whole, group=ctx.spread.group)  # gloo has no reduce-scatter
        return whole.chunk(ctx.spread.parts, ctx.dim)[ctx.spread.part].contiguous(), None, None
