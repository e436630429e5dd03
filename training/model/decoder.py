"""A decoder: tokens to the next token's logits. One device, no engine."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from training.model.attention import View, exact_mask, row_mask, spread_mask
from training.model.block import Block
from training.model.cache import KVCache
from training.model.config import ModelConfig
from training.model.norms import norm_of
from training.model.positions import rotary, sinusoids
from training.model.tied import Tied
from training.spread import Spread
from training.stages import Stage, blocks_of

# B batch, L tokens of a row, D width, V vocabulary


def embedded(
    tokens_BL: Tensor,
    positions_BL: Tensor,
    config: ModelConfig,
    words: nn.Module,
    places: nn.Module | None,
) -> Tensor:
    """The stream (B, L, D) before the first block: tokens, and positions where those are embedded."""
    x_BLD: Tensor = words(tokens_BL)
    if places is not None:
        return x_BLD + places(positions_BL)
    return x_BLD + sinusoids(positions_BL, config.width).to(x_BLD.dtype) if config.positions == "sinusoidal" else x_BLD


class Decoder(Tied):
    """Tokens to logits. Weights are undefined until ``init_weights`` or a load."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.spread: Spread | None = None  # set where rows are split over processes
        self.stage: Stage | None = None  # set where blocks are
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.embed_positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = norm_of(config)
        self.lm_head = nn.Linear(config.width, vocabulary, bias=False)
        self.tie()

    def forward(
        self,
        tokens_BL: Tensor,
        positions_BL: Tensor | None = None,
        segments_BL: Tensor | None = None,
        cache: KVCache | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits (B, L, V), or the last hidden states (B, L, D) with ``return_hidden`` or on a stage before the last.

        ``positions_BL``: by default counted from 0, or from the cache's end. ``segments_BL`` (int): a
        token attends to earlier tokens of its own segment only; 0 is padding. ``cache``: keys of
        earlier calls are seen, those of this one added.
        """
        start = cache.filled if cache is not None else 0
        if positions_BL is None and self.spread is not None:
            raise ValueError("rows that are split over processes need the positions of this process's tokens")
        if positions_BL is None:
            positions_BL = torch.arange(start, start + tokens_BL.shape[1], device=tokens_BL.device)[None]
        view = self.view(tokens_BL, positions_BL, segments_BL, cache)
        x_BLD = self.stage.arrived if self.stage is not None else None
        if x_BLD is None:
            x_BLD = embedded(tokens_BL, positions_BL, self.config, self.embed_tokens, self.embed_positions)
        for block in self.layers:
            x_BLD = block(x_BLD, view)
        if self.norm is None:  # the next stage goes on
            return x_BLD
        x_BLD = self.norm(x_BLD)
        if cache is not None:
            cache.filled += tokens_BL.shape[1]
        out: Tensor = x_BLD if return_hidden else self.lm_head(x_BLD)
        return out

    def view(
        self, tokens_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor | None, cache: KVCache | None = None
    ) -> View:
        """What every block is told: angles of the positions, and where each token may look."""
        view = View(rotary(positions_BL, self.config) if self.config.positions == "rotary" else None, causal=True)
        if cache is not None:
            if segments_BL is None:
                segments_BL = torch.ones_like(tokens_BL)
            view.cache, view.visible = cache, cache.begin(segments_BL)
            places = torch.arange(cache.filled, cache.filled + tokens_BL.shape[1], device=tokens_BL.device)
            slots = torch.arange(view.visible, device=tokens_BL.device)
            view.mask = exact_mask(places, slots, segments_BL, cache.segments_BM[:, : view.visible], causal=True)
        elif self.spread is not None:
            view.spread, view.mask = self.spread, spread_mask(self.spread, tokens_BL, segments_BL)
        elif segments_BL is not None:
            view.mask = row_mask(segments_BL, causal=True)
        return view


def draw(name: str, shape: torch.Size, layers: int, seed: int, deviation: float | None = None) -> Tensor:
    """The initial value of the parameter ``name``, a pure function of (seed, name, shape), in fp32.

    Norms are 1, biases 0, all else normal: of ``deviation`` where one is given, else of 0.02, outputs of blocks
    scaled by 1/√(2 layers) (GPT-2's scheme).
    """
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if deviation is None:
        deviation = 0.02
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            deviation /= math.sqrt(2 * layers)
    return torch.randn(shape, generator=generator) * deviation


def _deviation(name: str, config: ModelConfig) -> float:
    """The deviation of first weights with relative positions, as T5 has them: what its attention without a scale and
    its scaled head are made for (mesh-tensorflow's layers; from 0.02 throughout it learns several times slower)."""
    inputs = {
        "embed_tokens": 1,
        "q_proj": config.width * config.head_width,
        "o_proj": config.heads * config.head_width,
        "down_proj": config.inner,
    }
    return float(inputs.get(name.rsplit(".", 2)[-2], config.width) ** -0.5)


def init_weights(model: nn.Module, seed: int) -> None:
    """Fill every parameter of a model (plain or sharded) with what ``draw`` gives for its name."""
    from training.parallel import put_full

    layers = blocks_of(model)
    config = getattr(model, "config", None)
    sided = config if config is not None and config.positions == "relative" else None
    for name, parameter in model.named_parameters():
        deviation = _deviation(name, sided) if sided else None
        put_full(parameter, draw(name, parameter.shape, max(layers, 1), seed, deviation))
