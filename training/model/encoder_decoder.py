"""An encoder–decoder (T5, arXiv:1910.10683): a row is read whole, an answer is said token by token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.model.attention import View, exact_mask
from training.model.block import Block
from training.model.cache import AnswerCache
from training.model.config import ModelConfig
from training.model.norms import norm_of
from training.model.positions import buckets, rotary
from training.model.tied import Tied

# B batch, M tokens of a row that is read, L tokens of an answer, D width, H heads, V vocabulary


class Stack(nn.Module):
    """The blocks of one side, with one table of relative positions for all of them, or rotary ones."""

    def __init__(self, config: ModelConfig, answers: bool) -> None:
        super().__init__()
        self.config, self.answers = config, answers
        relative = config.positions == "relative"
        self.relative = nn.Embedding(config.buckets, config.heads) if relative else None
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, layer, cross=answers) for layer in range(config.layers))
        self.norm = norm_of(config)

    def forward(
        self,
        x_BLD: Tensor,
        segments_BL: Tensor,
        memory_BMD: Tensor | None = None,
        memory_segments_BM: Tensor | None = None,
        cache: AnswerCache | None = None,
    ) -> Tensor:
        """The normed stream after all blocks; tokens see those of their own segment, there and in ``memory``."""
        start = cache.own.filled if cache is not None else 0
        places = torch.arange(start, start + x_BLD.shape[1], device=x_BLD.device)
        slots, seen_BM = places, segments_BL
        view = View()
        if cache is not None:
            view.cache, view.visible = cache.own, cache.own.begin(segments_BL)
            slots = torch.arange(view.visible, device=x_BLD.device)
            seen_BM = cache.own.segments_BM[:, : view.visible]
        view.mask = exact_mask(places, slots, segments_BL, seen_BM, causal=self.answers)
        if self.relative is None:  # packed texts need no positions of their own: only distances count
            view.turn = rotary(places[None], self.config)
        else:
            near_LM = buckets(slots[None, :] - places[:, None], self.config, both_ways=not self.answers)
            view.bias = self.relative(near_LM).permute(2, 0, 1)[None]
        memory_view = None
        if memory_BMD is not None and memory_segments_BM is not None:
            sources = torch.arange(memory_BMD.shape[1], device=x_BLD.device)
            memory_view = View(mask=exact_mask(places, sources, segments_BL, memory_segments_BM, causal=False))
            memory_view.kept = cache.kept if cache is not None else None
        x_BLD = self.drop(x_BLD)
        for block in self.layers:
            x_BLD = block(x_BLD, view, memory_BMD, memory_view)
        out: Tensor = self.norm(x_BLD)
        return out


class EncoderDecoder(Tied):
    """Rows and the beginnings of answers to logits. Weights are undefined until ``init_weights`` or a load."""

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.encoder, self.decoder = Stack(config, answers=False), Stack(config, answers=True)
        self.lm_head = nn.Linear(config.width, vocabulary, bias=False)
        self.tie()

    def forward(
        self,
        tokens_BM: Tensor | None,
        answers_BL: Tensor,
        segments_BM: Tensor | None = None,
        answer_segments_BL: Tensor | None = None,
        cache: AnswerCache | None = None,
    ) -> Tensor:
        """Logits (B, L, V) of the token after each of ``answers``, which begin with the padding token.

        ``segments`` (int): tokens see those of their own segment only, answers also those they read; 0 is padding.
        ``cache``: after the first call with it rows need not be given again, and ``answers`` go on from earlier calls'.
        """
        answer_segments_BL = torch.ones_like(answers_BL) if answer_segments_BL is None else answer_segments_BL
        memory_BMD, segments_BM = self._read(tokens_BM, segments_BM, cache)
        x_BLD = self.decoder(self.embed_tokens(answers_BL), answer_segments_BL, memory_BMD, segments_BM, cache)
        if cache is not None:
            cache.own.filled += answers_BL.shape[1]
        # T5 1.0 keeps the embedding's scale apart from the head's.
        if self.config.tied and self.config.positions == "relative":
            x_BLD = x_BLD * self.config.width**-0.5
        out: Tensor = self.lm_head(x_BLD)
        return out

    def _read(
        self, tokens_BM: Tensor | None, segments_BM: Tensor | None, cache: AnswerCache | None
    ) -> tuple[Tensor, Tensor]:
        """What the encoder makes of rows, or made of them in an earlier call; with the segments."""
        if cache is not None and cache.memory_BMD is not None and cache.segments_BM is not None:
            return cache.memory_BMD, cache.segments_BM
        if tokens_BM is None:
            raise ValueError("there are no rows to read, and none were read before")
        segments_BM = torch.ones_like(tokens_BM) if segments_BM is None else segments_BM
        memory_BMD = self.encoder(self.embed_tokens(tokens_BM), segments_BM)
        if cache is not None:
            cache.memory_BMD, cache.segments_BM = memory_BMD, segments_BM
        return memory_BMD, segments_BM
