"""Attention: who may look where, and the product itself. One function for CPU and GPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from training.model.cache import KVCache
from training.model.config import ModelConfig
from training.model.norms import RMSNorm
from training.model.positions import rotate
from training.spread import Spread

# B batch, L tokens of a row, M keys that a query may see, D width, H heads, K key heads, E head width
_FLEX_BLOCK = 128  # flex_attention's own block: rows that are no multiple of it take the exact mask


@dataclass
class View:
    """What blocks need to know beside the stream. No tuple: FSDP would cast the angles in it to bf16."""

    turn: tuple[Tensor, Tensor] | None = None  # cosine and sine of rotary positions
    mask: Tensor | BlockMask | None = None  # (B, 1, L, M), true where a query may look; None for no bound
    causal: bool = False  # with mask None: only back
    bias: Tensor | None = None  # (B or 1, H, L, M), added to the scores (relative positions)
    cache: KVCache | None = None
    visible: int = 0  # slots of the cache that are looked at
    kept: dict[int, tuple[Tensor, Tensor]] | None = None  # keys and values of a memory, by layer, once computed
    spread: Spread | None = None  # where other processes hold the other tokens of the rows


def exact_mask(
    queries_L: Tensor, keys_M: Tensor, segments_BL: Tensor, segments_BM: Tensor, causal: bool, window: int | None = None
) -> Tensor:
    """Where each query may look (B, 1, L, M): within its segment, back only if ``causal``, at most half a
    ``window`` to either side. ``queries_L`` and ``keys_M`` are places in the row."""
    far_LM = keys_M[None, :] - queries_L[:, None]
    mask_BLM = segments_BL[:, :, None] == segments_BM[:, None, :]
    if causal:
        mask_BLM = mask_BLM & (far_LM <= 0)
    if window:
        mask_BLM = mask_BLM & (far_LM.abs() <= window // 2)
    return mask_BLM[:, None]


def row_mask(segments_BL: Tensor, causal: bool, window: int | None = None) -> Tensor | BlockMask:
    """The mask of whole rows: in blocks for ``flex_attention`` on a GPU, exact elsewhere."""
    length = segments_BL.shape[1]
    if segments_BL.device.type != "cuda" or length % _FLEX_BLOCK:
        places = torch.arange(length, device=segments_BL.device)
        return exact_mask(places, places, segments_BL, segments_BL, causal, window)

    def may(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = segments_BL[row, query] == segments_BL[row, key]
        if causal:
            seen = seen & (key <= query)
        return seen & ((key - query).abs() <= window // 2) if window else seen

    mask: BlockMask = _block_mask()(may, segments_BL.shape[0], None, length, length, device=segments_BL.device)
    return mask


def spread_mask(spread: Spread, tokens_BL: Tensor, segments_BL: Tensor | None) -> Tensor:
    """The causal mask (B, 1, L, M) of this process's tokens over all M of their rows."""
    length = tokens_BL.shape[1] * spread.parts
    here, every = (places.to(tokens_BL.device) for places in (spread.places(length), spread.all_places(length)))
    if segments_BL is None:
        segments_BL = torch.ones_like(tokens_BL[:1])
    return exact_mask(here, every, segments_BL, spread.gather(segments_BL, 1), causal=True)


@cache
def _block_mask() -> Any:
    return torch.compiler.disable(create_block_mask)  # no part of a compiled model: it goes round the graph


@cache
def _flex() -> Any:
    return torch.compile(flex_attention)


def attend(q_BHLE: Tensor, k_BKME: Tensor, v_BKME: Tensor, view: View, scale: float | None = None) -> Tensor:
    """Values (B, H, L, E) mixed by softmax(q k ``scale`` + bias), 1/√E by default; K divides H."""
    if isinstance(view.mask, BlockMask):
        mixed: Tensor = _flex()(
            q_BHLE, k_BKME, v_BKME, block_mask=view.mask, scale=scale, enable_gqa=q_BHLE.shape[1] != k_BKME.shape[1]
        )
        return mixed
    if (groups := q_BHLE.shape[1] // k_BKME.shape[1]) > 1:
        k_BKME, v_BKME = k_BKME.repeat_interleave(groups, dim=1), v_BKME.repeat_interleave(groups, dim=1)
    mask, plain = view.mask, view.mask is None and view.bias is None
    if view.bias is not None:
        bias = view.bias.to(q_BHLE.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    return F.scaled_dot_product_attention(
        q_BHLE, k_BKME, v_BKME, attn_mask=mask, is_causal=view.causal and plain, scale=scale
    )


class Attention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245), of a row to itself or to another's ``memory``."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.head_width, self.layer = config.head_width, layer
        self.scale = 1.0 if config.positions == "relative" else None  # T5 has it in its weights
        heads, keys = config.heads * config.head_width, config.key_heads * config.head_width
        self.q_proj = nn.Linear(config.width, heads, bias=config.bias)
        self.k_proj = nn.Linear(config.width, keys, bias=config.bias)
        self.v_proj = nn.Linear(config.width, keys, bias=config.bias)
        self.o_proj = nn.Linear(heads, config.width, bias=config.bias)
        self.q_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_width, config.norm_eps) if config.qk_norm else None

    def _heads(self, x_BLD: Tensor, norm: nn.Module | None) -> Tensor:
        x_BLHE = x_BLD.view(x_BLD.shape[0], x_BLD.shape[1], -1, self.head_width)
        return (x_BLHE if norm is None else norm(x_BLHE)).transpose(1, 2)

    def _keys(self, source_BMD: Tensor, view: View) -> tuple[Tensor, Tensor]:
        if view.kept is not None and self.layer in view.kept:
            return view.kept[self.layer]
        found = self._heads(self.k_proj(source_BMD), self.k_norm), self._heads(self.v_proj(source_BMD), None)
        if view.kept is not None:
            view.kept[self.layer] = found
        return found

    def forward(self, x_BLD: Tensor, view: View, memory_BMD: Tensor | None = None) -> Tensor:
        """Mix the rows' tokens, or those of ``memory``."""
        q_BHLE = self._heads(self.q_proj(x_BLD), self.q_norm)
        k_BKLE, v_BKLE = self._keys(x_BLD if memory_BMD is None else memory_BMD, view)
        if view.turn is not None and memory_BMD is None:
            q_BHLE, k_BKLE = rotate(q_BHLE, *view.turn), rotate(k_BKLE, *view.turn)
        if view.cache is not None:
            k_BKLE, v_BKLE = view.cache.put(self.layer, k_BKLE, v_BKLE, view.visible)
            k_BKLE, v_BKLE = k_BKLE.to(q_BHLE.dtype), v_BKLE.to(q_BHLE.dtype)
        if view.spread is not None:
            k_BKLE, v_BKLE = view.spread.gather(k_BKLE, 2), view.spread.gather(v_BKLE, 2)
        mixed = attend(q_BHLE, k_BKLE, v_BKLE, view, self.scale)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out
