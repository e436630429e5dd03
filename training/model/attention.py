"""Attention: who may look where, and the product itself. One function for CPU and GPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from training.model.cache import KVCache
from training.model.config import ModelConfig
from training.model.norms import RMSNorm
from training.model.positions import rotate
from training.spread import Spread

# B batch, L tokens of a row, M keys that a query may see, D width, H heads, K key heads, E head width
_FLEX_BLOCK = 128  # flex_attention's own block: rows that are no multiple of it take the exact mask


class View:
    """What blocks need to know beside the stream.

    A plain class: FSDP looks into tuples, dicts and dataclasses, would cast the angles to bf16 and copy ``kept``.
    """

    def __init__(
        self,
        turn: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | BlockMask | None = None,
        causal: bool = False,
    ) -> None:
        self.turn = turn  # cosine and sine of rotary positions
        self.mask = mask  # (B, 1, L, M), true where a query may look; None for no bound
        self.causal = causal  # with mask None: only back
        self.bias: Tensor | None = None  # (B or 1, H, L, M), added to the scores (relative positions)
        self.cache: KVCache | None = None
        self.visible = 0  # slots of the cache that are looked at
        self.kept: dict[int, tuple[Tensor, Tensor]] | None = None  # keys and values of a memory, by layer
        self.spread: Spread | None = None  # where other processes hold the other tokens of the rows


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


@torch.compiler.disable  # no part of a compiled model: it goes round the graph
def block_mask(
    queries_L: Tensor, keys_M: Tensor, segments_BL: Tensor, segments_BM: Tensor, causal: bool, window: int | None = None
) -> BlockMask:
    """``exact_mask`` for ``flex_attention``: which blocks of 128 it looks into, and which it sees whole.

    L and M are multiples of 128; nothing of L × M is made. A block is looked into where ranges of places and segments
    meet. One row of segments stands for all.
    """

    def may(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = row * 0 if len(segments_BL) == 1 else row
        far, seen = keys_M[key] - queries_L[query], segments_BL[row, query] == segments_BM[row, key]
        if causal:
            seen = seen & (far <= 0)
        return seen & (far.abs() <= window // 2) if window else seen

    query0, query1 = (ends_Q[:, None] for ends_Q in _ranges(queries_L))
    own0, own1 = (ends_BQ[:, :, None] for ends_BQ in _ranges(segments_BL))
    other0, other1 = (ends_BK[:, None] for ends_BK in _ranges(segments_BM))
    key0, key1 = _ranges(keys_M)
    some, every = (own0 <= other1) & (other0 <= own1), (own0 == own1) & (other0 == other1) & (own0 == other0)
    if causal:
        some, every = some & (key0 <= query1), every & (key1 <= query0)
    if window:
        some = some & (key0 - query1 <= window // 2) & (query0 - key1 <= window // 2)
        every = every & (key1 - query0 <= window // 2) & (query1 - key0 <= window // 2)
    part, whole = (_ordered(blocks_BQK[:, None]) for blocks_BQK in (some & ~every, some & every))
    lengths = (len(queries_L), len(keys_M))
    mask: BlockMask = BlockMask.from_kv_blocks(*part, *whole, BLOCK_SIZE=_FLEX_BLOCK, mask_mod=may, seq_lengths=lengths)
    return mask


def _ranges(values: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest of each 128 values."""
    blocks = values.unflatten(-1, (-1, _FLEX_BLOCK))
    return blocks.amin(-1), blocks.amax(-1)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are set, and all of them, those set first; as ``BlockMask`` wants them."""
    indices = torch.argsort(blocks.int(), dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), indices.int()


def row_mask(segments_BL: Tensor, causal: bool, window: int | None = None) -> Tensor | BlockMask:
    """The mask of whole rows."""
    places = torch.arange(segments_BL.shape[1], device=segments_BL.device)
    return _mask(places, places, segments_BL, segments_BL, causal, window)


def spread_mask(spread: Spread, tokens_BL: Tensor, segments_BL: Tensor | None) -> Tensor | BlockMask:
    """The causal mask of this process's tokens over all M of their rows."""
    length = tokens_BL.shape[1] * spread.parts
    here, every = (places.to(tokens_BL.device) for places in (spread.places(length), spread.all_places(length)))
    if segments_BL is None:
        segments_BL = torch.ones_like(tokens_BL[:1])
    return _mask(here, every, segments_BL, spread.gather(segments_BL, 1), True)


def _mask(
    queries_L: Tensor, keys_M: Tensor, segments_BL: Tensor, segments_BM: Tensor, causal: bool, window: int | None = None
) -> Tensor | BlockMask:
    """In blocks for ``flex_attention`` on a GPU, exact elsewhere."""
    in_blocks = segments_BL.device.type == "cuda" and len(queries_L) % _FLEX_BLOCK == len(keys_M) % _FLEX_BLOCK == 0
    make = block_mask if in_blocks else exact_mask
    return make(queries_L, keys_M, segments_BL, segments_BM, causal, window)


@cache
def _flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)  # lengths are few, and free ones are slower


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
