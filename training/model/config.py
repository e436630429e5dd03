"""What a decoder looks like. No torch here: drivers check recipes without it."""

from __future__ import annotations

from pydantic import Field, model_validator

from dataeng.recipe import Table


class DecoderConfig(Table):
    """A decoder of the Llama family; the vocabulary comes from the tokenizer."""

    layers: int = Field(4, ge=1, description="Transformer blocks")
    width: int = Field(192, ge=8, description="Width of the residual stream")
    heads: int = Field(6, ge=1, description="Query heads; width / heads is the width of a head")
    kv_heads: int | None = Field(None, ge=1, description="Key and value heads (arXiv:2305.13245); by default heads")
    ffn: int | None = Field(None, ge=8, description="Width of SwiGLU's inner layer; by default 8/3 width, up to 64s")
    context: int = Field(256, ge=8, description="Longest sequence, in tokens")
    rope_theta: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies (arXiv:2104.09864)")
    tied: bool = Field(True, description="Whether the head shares the embedding's weights")
    norm_eps: float = Field(1e-5, gt=0, description="Epsilon of RMSNorm (arXiv:1910.07467)")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of each block's two outputs")

    @model_validator(mode="after")
    def _fits(self) -> DecoderConfig:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}, with an even head width")
        if self.heads % self.key_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.key_heads}")
        return self

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def inner(self) -> int:
        """Width of SwiGLU's inner layer."""
        return self.ffn or -(-(8 * self.width // 3) // 64) * 64

    def parameters(self, vocabulary: int) -> int:
        """The number of parameters with a vocabulary of that size."""
        attention = self.width * self.head_width * (2 * self.heads + 2 * self.key_heads)
        block = attention + 3 * self.width * self.inner + 2 * self.width
        return self.layers * block + self.width + vocabulary * self.width * (1 if self.tied else 2)
