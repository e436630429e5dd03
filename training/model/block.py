"""The block that every model is made of: attention and a feed-forward layer round a residual stream.

Sub-modules bear Llama's names, so that a Llama export is the state dict under a prefix.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from training.model.attention import Attention, View
from training.model.config import ModelConfig
from training.model.norms import norm_of

# B batch, L tokens of a row, M tokens of a memory, D width


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "geglu": F.gelu,
    "geglu_tanh": _gelu_tanh,
    "gelu": F.gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": F.relu,
}


class FeedForward(nn.Module):
    """Up, activation, down; gated (arXiv:2002.05202) or not."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activate = ACTIVATIONS[config.activation]
        self.gate_proj = nn.Linear(config.width, config.inner, bias=config.bias) if config.gated else None
        self.up_proj = nn.Linear(config.width, config.inner, bias=config.bias)
        self.down_proj = nn.Linear(config.inner, config.width, bias=config.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The layer's output."""
        up = self.up_proj(x_BLD)
        inner = self.activate(up) if self.gate_proj is None else self.activate(self.gate_proj(x_BLD)) * up
        out: Tensor = self.down_proj(inner)
        return out


class Block(nn.Module):
    """Attention and feed-forward; with ``cross``, attention to a memory stands between the two.

    Norms open each layer, or follow each sum (``norm_after``). ``bare``: the stream comes normed already.
    """

    def __init__(self, config: ModelConfig, layer: int, cross: bool = False, bare: bool = False) -> None:
        super().__init__()
        self.after = config.norm_after
        self.input_layernorm = nn.Identity() if bare else norm_of(config)
        self.self_attn = Attention(config, layer)
        self.cross_layernorm = norm_of(config) if cross else None
        self.cross_attn = Attention(config, layer) if cross else None
        self.post_attention_layernorm = norm_of(config)
        self.mlp = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x_BLD: Tensor, view: View, memory_BMD: Tensor | None = None, memory_view: View | None = None
    ) -> Tensor:
        """The stream after this block."""
        if self.after:
            x_BLD = self.input_layernorm(x_BLD + self.drop(self.self_attn(x_BLD, view)))
            out: Tensor = self.post_attention_layernorm(x_BLD + self.drop(self.mlp(x_BLD)))
            return out
        x_BLD = x_BLD + self.drop(self.self_attn(self.input_layernorm(x_BLD), view))
        if self.cross_attn is not None and self.cross_layernorm is not None and memory_view is not None:
            x_BLD = x_BLD + self.drop(self.cross_attn(self.cross_layernorm(x_BLD), memory_view, memory_BMD))
        return x_BLD + self.drop(self.mlp(self.post_attention_layernorm(x_BLD)))
