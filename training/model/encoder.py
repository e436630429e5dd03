"""An encoder: every token sees all others; the head says which token stands where (BERT, ModernBERT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.attention import View, row_mask
from training.model.block import Block
from training.model.config import ModelConfig
from training.model.decoder import embedded
from training.model.norms import norm_of
from training.model.positions import rotary
from training.model.tied import Tied

# B batch, L tokens of a row, D width, V vocabulary


class Encoder(Tied):
    """Tokens to logits of the tokens themselves. Weights are undefined until ``init_weights`` or a load.

    The embedding is normed, so a first block that opens with a norm goes without it, and so does the end where
    norms follow each sum. With ``local_window`` only every ``global_every``-th block sees whole rows.
    """

    def __init__(self, config: ModelConfig, vocabulary: int) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        after = config.norm_after
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.embed_positions = nn.Embedding(config.context, config.width) if config.positions == "learned" else None
        self.embed_norm = norm_of(config)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Block(config, n, bare=n == 0 and not after) for n in range(config.layers))
        self.norm = nn.Identity() if after else norm_of(config)
        self.head_dense = nn.Linear(config.width, config.width, bias=config.bias)
        self.head_norm = norm_of(config)
        self.lm_head = nn.Linear(config.width, vocabulary)
        self.tie()

    def forward(
        self,
        tokens_BL: Tensor,
        positions_BL: Tensor | None = None,
        segments_BL: Tensor | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits (B, L, V), or the last hidden states (B, L, D) with ``return_hidden``.

        ``positions_BL``: by default counted from 0. ``segments_BL`` (int): a token attends to its own
        segment only; 0 is padding.
        """
        if positions_BL is None:
            positions_BL = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)[None]
        near, far = self.views(tokens_BL, positions_BL, segments_BL)
        x_BLD = embedded(tokens_BL, positions_BL, self.config, self.embed_tokens, self.embed_positions)
        x_BLD = self.drop(self.embed_norm(x_BLD))
        for number, block in enumerate(self.layers):
            x_BLD = block(x_BLD, near if self.config.local_window and number % self.config.global_every else far)
        x_BLD = self.norm(x_BLD)
        if return_hidden:
            return x_BLD
        out: Tensor = self.lm_head(self.head_norm(F.gelu(self.head_dense(x_BLD))))
        return out

    def views(self, tokens_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor | None) -> tuple[View, View]:
        """What local and global blocks are told: angles of the positions, and where each token may look."""
        turned, window = self.config.positions == "rotary", self.config.local_window
        far = View(rotary(positions_BL, self.config) if turned else None)
        if segments_BL is not None:
            far.mask = row_mask(segments_BL, causal=False)
        if not window:
            return far, far
        near = View(rotary(positions_BL, self.config, local=True) if turned else None)
        near.mask = row_mask(torch.ones_like(tokens_BL) if segments_BL is None else segments_BL, False, window)
        return near, far
