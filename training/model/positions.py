"""Where a token stands: rotary angles and their scaling, sinusoids, relative distances."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from training.model.config import ModelConfig, RopeScaling

# B batch, L tokens of a row, M keys, D width, E head width, P = E / 2 pairs of a head


def _llama3(plain_P: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1's frequencies: slow ones divided by the factor, fast ones left, a ramp between (its model card)."""
    turns_P = float(scaling.original_context or 0) * plain_P / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    ramp_P = ((turns_P - low) / (high - low)).clamp(0, 1)
    return (1 - ramp_P) * plain_P / scaling.factor + ramp_P * plain_P


def _yarn(plain_P: Tensor, theta: float, scaling: RopeScaling) -> tuple[Tensor, float]:
    """YaRN's frequencies and the factor of cosine and sine (arXiv:2309.00071, sections 3.2 and 3.4)."""
    width = 2 * len(plain_P)

    def dimension(turns: float) -> float:
        return width * math.log((scaling.original_context or 0) / (turns * 2 * math.pi)) / (2 * math.log(theta))

    def weight(mscale: float) -> float:
        return 0.1 * mscale * math.log(scaling.factor) + 1.0

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    ramp_P = ((torch.arange(len(plain_P)) - low) / (high - low or 0.001)).clamp(0, 1)
    factor = scaling.attention_factor
    if factor is None:
        both = scaling.mscale and scaling.mscale_all_dim
        factor = weight(scaling.mscale or 1) / weight(scaling.mscale_all_dim or 1) if both else weight(1)
    return plain_P / scaling.factor * ramp_P + plain_P * (1 - ramp_P), factor


@lru_cache(maxsize=64)
def frequencies(head_width: int, theta: float, scaling: RopeScaling | None) -> tuple[tuple[float, ...], float]:
    """The angle by which each pair turns from one token to the next, in fp32, and a factor of cosine and sine.

    Numbers, not a tensor: one that was made in inference mode could not be trained with later.
    """
    with torch.device("cpu"):
        plain_P = 1.0 / theta ** (torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
        factor = 1.0
        if scaling and scaling.type == "linear":
            plain_P = plain_P / scaling.factor
        elif scaling and scaling.type == "llama3":
            plain_P = _llama3(plain_P, scaling)
        elif scaling:
            plain_P, factor = _yarn(plain_P, theta, scaling)
    return tuple(plain_P.tolist()), factor


def rotary(positions_BL: Tensor, config: ModelConfig, local: bool = False) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, 1, L, P) of RoPE's angles in fp32 (arXiv:2104.09864)."""
    theta, scaling = (config.local_theta, None) if local else (config.rope_theta, config.rope_scaling)
    turns, factor = frequencies(config.head_width, theta, scaling)
    angle = positions_BL[:, None, :, None].float() * torch.tensor(turns, device=positions_BL.device)
    return angle.cos() * factor, angle.sin() * factor


def rotate(x_BHLE: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair (i, i + E/2) of a head, as Llama has them, turned by its position's angle; computed in fp32."""
    left_BHLP, right_BHLP = x_BHLE.chunk(2, dim=-1)
    turned = (
        torch.addcmul(left_BHLP * cosine, right_BHLP, sine, value=-1),
        torch.addcmul(right_BHLP * cosine, left_BHLP, sine),
    )
    return torch.cat([half_BHLP.to(x_BHLE.dtype) for half_BHLP in turned], dim=-1)


def sinusoids(positions_BL: Tensor, width: int) -> Tensor:
    """Fixed embeddings (B, L, D) of positions: sines, then cosines (arXiv:1706.03762, section 3.5)."""
    exponent = torch.arange(0, width, 2, device=positions_BL.device, dtype=torch.float32) / width
    angle = positions_BL[..., None].float() * 10_000.0**-exponent
    return torch.cat((angle.sin(), angle.cos()), dim=-1)[..., :width]


def buckets(distance: Tensor, config: ModelConfig, both_ways: bool) -> Tensor:
    """The bucket of each distance key − query (T5, arXiv:1910.10683, section 2.1): near ones alone, far ones by log.

    ``both_ways``: keys after the query have buckets of their own, half of all.
    """
    count = config.buckets // 2 if both_ways else config.buckets
    first = (distance > 0).long() * count if both_ways else torch.zeros_like(distance)
    steps = distance.abs() if both_ways else (-distance).clamp(min=0)
    exact = count // 2
    far = torch.log(steps.clamp(min=1).float() / exact) / math.log(config.distance / exact) * (count - exact)
    return first + torch.where(steps < exact, steps, (exact + far.long()).clamp(max=count - 1))
