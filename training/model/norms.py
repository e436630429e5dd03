"""Norms, computed in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.config import ModelConfig


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv:1910.07467), computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The normed input, in its own type."""
        return F.rms_norm(x_BLD.float(), (x_BLD.shape[-1],), self.weight.float(), self.eps).to(x_BLD.dtype)


class LayerNorm(nn.Module):
    """Mean and variance norm (arXiv:1607.06450), computed in fp32; the bias is optional."""

    def __init__(self, width: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The normed input, in its own type."""
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x_BLD.float(), (x_BLD.shape[-1],), self.weight.float(), bias, self.eps).to(x_BLD.dtype)


def norm_of(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The norm that a model's config asks for, over its width."""
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps)
    return LayerNorm(config.width, config.norm_eps, config.bias)
