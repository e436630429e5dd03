"""Log-probabilities of tokens, and sums that padding cannot touch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100  # a target that counts for nothing
# B sequences, L tokens of each, V vocabulary


def token_log_probs(logits_BLV: Tensor, targets_BL: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability (B, L) of each target under its logits, divided by ``temperature``, in fp32."""
    logits = logits_BLV.float() / temperature if temperature != 1.0 else logits_BLV.float()
    return -F.cross_entropy(logits.flatten(0, 1), targets_BL.flatten(), reduction="none").view(targets_BL.shape)


def _sums(logits_BLV: Tensor, targets_BL: Tensor, with_z: bool) -> tuple[Tensor, Tensor | None]:
    logits_BLV = logits_BLV.float()
    total = F.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), ignore_index=IGNORED, reduction="sum")
    z = (logits_BLV.logsumexp(-1).square() * (targets_BL != IGNORED)).sum() if with_z else None
    return total, z


@cache
def _compiled() -> Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]:
    return torch.compile(_sums)


def cross_entropy(
    logits_BLV: Tensor, targets_BL: Tensor, with_z: bool = False, compiled: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Cross-entropy summed over the targets that count, in fp32; with ``with_z`` also their squared log-sum-exp's sum.

    ``compiled``, the fp32 logits are never stored: a tenth of a small model's step on two cores.
    """
    return (_compiled() if compiled else _sums)(logits_BLV, targets_BL, with_z)


def logits_of(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits (B, L, V) of a batch's ``targets``; with ``answers``, those are read beside ``tokens`` (two sides)."""
    segments, answers = batch.get("segments"), batch.get("answers")
    made: Tensor
    if answers is None:
        made = model(batch["tokens"], positions_BL=batch.get("positions"), segments_BL=segments)
    else:
        made = model(batch["tokens"], answers, segments, batch.get("answer_segments"))
    return made


def row_losses(logits_BLV: Tensor, targets_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (B,) of each row, summed over the targets that count, in fp32, and their number (B,)."""
    flat = F.cross_entropy(
        logits_BLV.float().flatten(0, 1), targets_BL.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return flat.view(targets_BL.shape).sum(1), (targets_BL != IGNORED).sum(1)


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
