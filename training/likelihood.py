"""Log-probabilities of tokens, and sums that padding cannot touch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# B sequences, L tokens of each, V vocabulary


def token_log_probs(logits_BLV: Tensor, targets_BL: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability (B, L) of each target under its logits, divided by ``temperature``, in fp32."""
    logits = logits_BLV.float() / temperature if temperature != 1.0 else logits_BLV.float()
    return -F.cross_entropy(logits.flatten(0, 1), targets_BL.flatten(), reduction="none").view(targets_BL.shape)


def only(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` where ``mask`` is true, else 0; what stands elsewhere, NaN too, leaves no trace.

    A product with the mask would keep NaN (NaN × 0 = NaN), in the value or in the gradient.
    """
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """The sum of ``values`` where ``mask`` is true."""
    return only(values, mask).sum()


def kl_k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """The estimator k3 of KL(policy ‖ reference) for each token: e^Δ − Δ − 1, Δ = reference − policy.

    Unbiased and never negative (Schulman, "Approximating KL divergence", 2020); 0.00517092 at Δ = 0.1.
    """
    delta = reference - log_probs
    return torch.exp(delta) - delta - 1.0


def clipped_objective(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """PPO's surrogate loss for each token, and where the clipping was active (arXiv:1707.06347, eq. 7).

    −min(r A, clamp(r, 1 − clip, 1 + clip) A), r = exp(log_probs − old).
    """
    ratio = torch.exp(log_probs - old)
    plain, bounded = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(plain, bounded), bounded < plain
