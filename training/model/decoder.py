"""A decoder of the Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU. One device, no engine.

Sub-modules bear Llama's names, so that an export is the state dict under a prefix.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.cache import KVCache
from training.model.config import DecoderConfig

# B batch, L tokens of a row, M keys that a query may see, D width, H heads, K key heads, E head width,
# V vocabulary, F inner width


def rotary(positions_BL: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, L, E) of RoPE in fp32, halves repeated as Llama does (arXiv:2104.09864)."""
    exponent = torch.arange(0, head_width, 2, device=positions_BL.device, dtype=torch.float32) / head_width
    angle = positions_BL[:, None, :, None].float() * (theta**-exponent)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x_BHLE: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair (i, i + E/2) of a head turned by its position's angle."""
    left, right = x_BHLE.chunk(2, dim=-1)
    return (x_BHLE * cosine + torch.cat((-right, left), dim=-1) * sine).to(x_BHLE.dtype)


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv:1910.07467), computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The normed input, in its own type."""
        return F.rms_norm(x_BLD.float(), (x_BLD.shape[-1],), self.weight.float(), self.eps).to(x_BLD.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention (arXiv:2305.13245)."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        heads, keys = config.heads * config.head_width, config.key_heads * config.head_width
        self.q_proj = nn.Linear(config.width, heads, bias=False)
        self.k_proj = nn.Linear(config.width, keys, bias=False)
        self.v_proj = nn.Linear(config.width, keys, bias=False)
        self.o_proj = nn.Linear(heads, config.width, bias=False)

    def forward(
        self, x_BLD: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, visible: int
    ) -> Tensor:
        """Mix the rows' tokens; ``mask`` (B, 1, L, M) is true where a query may look, None for plain causal."""
        batch, length, _ = x_BLD.shape
        q_BHLE, k_BKLE, v_BKLE = (
            project(x_BLD).view(batch, length, -1, self.config.head_width).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BHLE, k_BKLE = rotate(q_BHLE, *turn), rotate(k_BKLE, *turn)
        if cache is not None:
            k_BKLE, v_BKLE = cache.put(self.layer, k_BKLE, v_BKLE, visible)
            k_BKLE, v_BKLE = k_BKLE.to(q_BHLE.dtype), v_BKLE.to(q_BHLE.dtype)
        if (groups := self.config.heads // self.config.key_heads) > 1:
            k_BKLE = k_BKLE.repeat_interleave(groups, dim=1)
            v_BKLE = v_BKLE.repeat_interleave(groups, dim=1)
        mixed = F.scaled_dot_product_attention(q_BHLE, k_BKLE, v_BKLE, attn_mask=mask, is_causal=mask is None)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv:2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.inner, bias=False)
        self.up_proj = nn.Linear(config.width, config.inner, bias=False)
        self.down_proj = nn.Linear(config.inner, config.width, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The layer's output."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BLD)) * self.up_proj(x_BLD))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each on the normed stream and added to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BLD: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: KVCache | None = None,
        visible: int = 0,
    ) -> Tensor:
        """The stream after this block."""
        x_BLD = x_BLD + self.drop(self.self_attn(self.input_layernorm(x_BLD), turn, mask, cache, visible))
        return x_BLD + self.drop(self.mlp(self.post_attention_layernorm(x_BLD)))


class Decoder(nn.Module):
    """Tokens to logits. Weights are undefined until ``init_weights`` or a load."""

    def __init__(self, config: DecoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = nn.Linear(config.width, vocabulary, bias=False)
        self.tie()

    def tie(self) -> None:
        """Let head and embedding share one parameter, where the config says so (again after ``to_empty``)."""
        if self.config.tied:
            self.lm_head.weight = self.embed_tokens.weight

    def forward(
        self,
        tokens_BL: Tensor,
        positions_BL: Tensor | None = None,
        segments_BL: Tensor | None = None,
        cache: KVCache | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits (B, L, V), or the last hidden states (B, L, D) with ``return_hidden``.

        ``positions_BL``: for RoPE; by default counted from 0, or from the cache's end. ``segments_BL``
        (int): a token attends to earlier tokens of its own segment only; 0 is padding. ``cache``: keys
        of earlier calls are seen, those of this one added.
        """
        start = cache.filled if cache is not None else 0
        if positions_BL is None:
            positions_BL = torch.arange(start, start + tokens_BL.shape[1], device=tokens_BL.device)[None]
        mask, visible = self._mask(tokens_BL, segments_BL, cache)
        turn = rotary(positions_BL, self.config.head_width, self.config.rope_theta)
        x_BLD = self.embed_tokens(tokens_BL)
        for block in self.layers:
            x_BLD = block(x_BLD, turn, mask, cache, visible)
        x_BLD = self.norm(x_BLD)
        if cache is not None:
            cache.filled += tokens_BL.shape[1]
        out: Tensor = x_BLD if return_hidden else self.lm_head(x_BLD)
        return out

    def _mask(self, tokens_BL: Tensor, segments_BL: Tensor | None, cache: KVCache | None) -> tuple[Tensor | None, int]:
        """Where each query may look (B, 1, L, M), None for plain causal; and M."""
        length = tokens_BL.shape[1]
        if cache is None:
            if segments_BL is None:
                return None, length
            keys_BM, start = segments_BL, 0
        else:
            if segments_BL is None:
                segments_BL = torch.ones_like(tokens_BL)
            visible = cache.begin(segments_BL)
            keys_BM, start = cache.segments_BM[:, :visible], cache.filled
        queries = torch.arange(start, start + length, device=tokens_BL.device)
        slots = torch.arange(keys_BM.shape[1], device=tokens_BL.device)
        causal_LM = slots[None, :] <= queries[:, None]
        mask = (segments_BL[:, :, None] == keys_BM[:, None, :]) & causal_LM
        return mask[:, None], keys_BM.shape[1]


def draw(name: str, shape: torch.Size, layers: int, seed: int) -> Tensor:
    """The initial value of the parameter ``name``, a pure function of (seed, name, shape), in fp32.

    Norms are 1, all else normal with deviation 0.02, outputs of blocks scaled by 1/√(2 layers)
    (GPT-2's scheme).
    """
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    deviation = 0.02
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation /= math.sqrt(2 * layers)
    return torch.randn(shape, generator=generator) * deviation


def init_weights(model: nn.Module, seed: int) -> None:
    """Fill every parameter of a model (plain or sharded) with what ``draw`` gives for its name."""
    from training.parallel import put_full

    layers = sum(isinstance(module, Block) for module in model.modules())
    for name, parameter in model.named_parameters():
        put_full(parameter, draw(name, parameter.shape, max(layers, 1), seed))
