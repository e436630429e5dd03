"""What a model looks like. No torch here: drivers check recipes without it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from dataeng.recipe import Table

# What differs from a decoder of the Llama family where nothing is said: ModernBERT's (arXiv:2412.13663) and T5
# 1.1's (arXiv:2002.05202) choices.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder": {"norm": "layer", "activation": "geglu"},
    "encoder_decoder": {"activation": "geglu_tanh", "positions": "relative", "norm_eps": 1e-6},
}
GATED = ("swiglu", "geglu", "geglu_tanh")


class RopeScaling(Table):
    """Rotary frequencies stretched beyond the context that they were trained for, as transformers computes them."""

    type: Literal["linear", "llama3", "yarn"] = Field(description="linear: all alike; yarn: arXiv:2309.00071")
    factor: float = Field(ge=1, description="Context now, as a multiple of the original one")
    original_context: int | None = Field(None, ge=1, description="Tokens that the model was trained for before")
    low_frequency_factor: float = Field(1.0, gt=0, description="llama3: fewer turns than this in the original: divided")
    high_frequency_factor: float = Field(4.0, gt=0, description="llama3: more turns than this are left alone")
    beta_fast: float = Field(32.0, gt=0, description="yarn: more turns than this are left alone")
    beta_slow: float = Field(1.0, gt=0, description="yarn: fewer turns than this are divided")
    attention_factor: float | None = Field(None, gt=0, description="yarn: of cosine and sine; by default 0.1 ln s + 1")
    mscale: float | None = Field(None, description="yarn, DeepSeek's form: weight of ln s in the numerator")
    mscale_all_dim: float | None = Field(None, description="yarn, DeepSeek's form: weight of ln s in the denominator")
    truncate: bool = Field(True, description="yarn: whether the ramp begins and ends at whole dimensions")

    @model_validator(mode="after")
    def _is_whole(self) -> RopeScaling:
        if self.type != "linear" and self.original_context is None:
            raise ValueError(f"{self.type} needs original_context, the tokens that the model was trained for before")
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError("high_frequency_factor must be more than low_frequency_factor")
        return self


class ModelConfig(Table):
    """A decoder, encoder or encoder–decoder; the vocabulary comes from the tokenizer."""

    kind: Literal["decoder", "encoder", "encoder_decoder"] = Field("decoder", description="Which assembly of blocks")
    layers: int = Field(4, ge=1, description="Transformer blocks; of an encoder–decoder, on each side")
    width: int = Field(192, ge=8, description="Width of the residual stream")
    heads: int = Field(6, ge=1, description="Query heads")
    kv_heads: int | None = Field(None, ge=1, description="Key and value heads (arXiv:2305.13245); by default heads")
    head_size: int | None = Field(None, ge=2, description="Width of a head; by default width / heads")
    ffn: int | None = Field(
        None, ge=8, description="Width of the feed-forward layer; by default 8/3 width, up to 64s, or 4 width ungated"
    )
    activation: Literal["swiglu", "geglu", "geglu_tanh", "gelu", "gelu_tanh", "relu"] = Field(
        "swiglu", description="Of the feed-forward layer; the -glu ones are gated (arXiv:2002.05202)"
    )
    norm: Literal["rms", "layer"] = Field("rms", description="RMSNorm (arXiv:1910.07467) or LayerNorm")
    norm_after: bool = Field(False, description="Whether norms follow each sum, as in BERT, and not open each layer")
    bias: bool = Field(False, description="Whether linear layers and LayerNorms have biases")
    qk_norm: bool = Field(False, description="RMSNorm of each head's queries and keys (Qwen3)")
    positions: Literal["rotary", "learned", "sinusoidal", "relative"] = Field(
        "rotary", description="relative is T5's bias of attention: what an encoder–decoder has by default"
    )
    context: int = Field(256, ge=8, description="Longest sequence, in tokens")
    rope_theta: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies (arXiv:2104.09864)")
    rope_scaling: RopeScaling | None = Field(None, description="Stretched rotary frequencies")
    local_window: int | None = Field(None, ge=2, description="Encoder: tokens seen around one in local layers")
    global_every: int = Field(3, ge=1, description="Encoder with a local_window: every so many layers see all")
    local_theta: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies in local layers")
    buckets: int = Field(32, ge=4, description="Distances that relative positions tell apart")
    distance: int = Field(128, ge=8, description="Distance from which on relative positions are one")
    tied: bool = Field(True, description="Whether the head shares the embedding's weights")
    norm_eps: float = Field(1e-5, gt=0, description="Epsilon of the norms")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout of each block's outputs")

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return _DEFAULTS.get(str(values.get("kind", "decoder")), {}) | values
        return values

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.head_size is None and self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}, or head_size be set")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"width {self.width} / heads {self.heads}: rotary positions need an even head width")
        if self.heads % self.key_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.key_heads}")
        sided = self.kind == "encoder_decoder"
        if self.positions != "rotary" and (self.positions == "relative") != sided:
            raise ValueError(
                f'kind = "{self.kind}" with positions = "{self.positions}": relative positions belong to '
                "an encoder_decoder, and it has these or rotary ones"
            )
        if self.positions == "relative" and self.distance <= self.buckets // 2:
            raise ValueError(
                f"distance = {self.distance}: must be more than half of buckets = {self.buckets}: nearer ones have a "
                "bucket each"
            )
        if self.local_window and self.kind != "encoder":
            raise ValueError(f'local_window = {self.local_window}: only an encoder has one, not kind = "{self.kind}"')
        if self.norm_after and self.kind != "encoder":
            raise ValueError(f'norm_after: only an encoder has it, not kind = "{self.kind}"')
        if self.rope_scaling and self.positions != "rotary":
            raise ValueError(f'rope_scaling with positions = "{self.positions}": it is for rotary ones')
        return self

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.kv_heads or self.heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.head_size or self.width // self.heads

    @property
    def gated(self) -> bool:
        """Whether the feed-forward layer has a gate."""
        return self.activation in GATED

    @property
    def inner(self) -> int:
        """Width of the feed-forward layer."""
        return self.ffn or (-(-(8 * self.width // 3) // 64) * 64 if self.gated else 4 * self.width)

    @property
    def all_layers(self) -> int:
        """Blocks in all: an encoder–decoder has twice ``layers``."""
        return 2 * self.layers if self.kind == "encoder_decoder" else self.layers

    def parameters(self, vocabulary: int) -> int:
        """The number of parameters with a vocabulary of that size."""
        heads, keys, bias = self.heads * self.head_width, self.key_heads * self.head_width, int(self.bias)
        norm = self.width * (2 if self.norm == "layer" and self.bias else 1)
        attention = self.width * (2 * heads + 2 * keys) + bias * (heads + 2 * keys + self.width)
        attention += 2 * self.head_width * self.qk_norm
        up = 2 if self.gated else 1
        feed = (up + 1) * self.width * self.inner + bias * (up * self.inner + self.width)
        total = self.all_layers * (attention + feed + 2 * norm) + vocabulary * self.width * (1 if self.tied else 2)
        total += self.context * self.width if self.positions == "learned" else 0
        if self.kind == "encoder":  # the embedding's norm stands for the first block's or the last one; then the head
            return total + norm + self.width * (self.width + bias) + norm + vocabulary
        if self.kind == "encoder_decoder":
            tables = 2 * self.buckets * self.heads if self.positions == "relative" else 0
            return total + self.layers * (attention + norm) + 2 * norm + tables
        return total + norm
