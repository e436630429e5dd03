"""Norms, computed in fp32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from training.model.config import ModelConfig


class _OnePassRMSNorm(torch.autograd.Function):
    """`F.rms_norm` for fp32 on a CPU, where torch's backward goes over memory some ten times: layer norm's does once,
    with a mean of zero."""

    @staticmethod
    def forward(ctx: Any, x_BLD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        inverse_BL1 = torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True).square_()
        inverse_BL1.div_(x_BLD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_BLD, weight_D, inverse_BL1)
        return (x_BLD * inverse_BL1).mul_(weight_D)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, slope_BLD: Tensor) -> tuple[Tensor, Tensor, None]:
        x_BLD, weight_D, inverse_BL1 = ctx.saved_tensors
        width = x_BLD.shape[-1]
        to_x_BLD, to_weight_D, _ = torch.ops.aten.native_layer_norm_backward(
            slope_BLD.contiguous(), x_BLD.contiguous(), [width], torch.zeros_like(inverse_BL1), inverse_BL1,
            weight_D, None, [True, True, False],
        )  # fmt: skip
        with torch.autocast("cpu", enabled=False):  # the product stays fp32 wherever backward is called
            mean_BL1 = (slope_BLD @ weight_D)[..., None] / width
        return to_x_BLD.addcmul_(inverse_BL1, mean_BL1), to_weight_D, None  # layer norm took the mean away


class RMSNorm(nn.Module):
    """Root mean square norm (arXiv:1910.07467), computed in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        """The normed input, in its own type."""
        wide_BLD, weight_D = x_BLD.float(), self.weight.float()
        if type(wide_BLD) is Tensor and x_BLD.device.type == "cpu" and not torch.compiler.is_compiling():
            normed: Tensor = _OnePassRMSNorm.apply(wide_BLD, weight_D, self.eps)
        else:  # one kernel on a GPU and in a compiled model; tensors that are split go by their own rules
            normed = F.rms_norm(wide_BLD, (x_BLD.shape[-1],), weight_D, self.eps)
        return normed.to(x_BLD.dtype)


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
