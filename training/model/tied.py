"""What decoders, encoders and encoder–decoders share: a head that may be the embedding's own weights."""

from __future__ import annotations

from torch import nn

from training.model.config import ModelConfig


class Tied(nn.Module):
    """A model with ``config``, ``embed_tokens`` and ``lm_head``."""

    config: ModelConfig
    embed_tokens: nn.Embedding
    lm_head: nn.Linear

    def tie(self) -> None:
        """Let head and embedding share one parameter, where the config says so (again after ``to_empty``)."""
        if self.config.tied and self.lm_head is not None:  # a pipeline's last stage has the head
            self.lm_head.weight = self.embed_tokens.weight
