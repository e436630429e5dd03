"""How a filter rule decides: bounds in their published order, the first that fails drops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dataeng.document import KEEP, Bound, Verdict


class Limit(NamedTuple):
    """A bound of one score: ``min`` drops below ``threshold``, ``max`` above it; equal is kept."""

    score: str
    bound: Bound
    threshold: float


def rule_name(limit: Limit, limits: Sequence[Limit]) -> str:
    """The rule of a bound: its score's name and, where the score has two bounds, which of them."""
    two = any(other.score == limit.score and other.bound != limit.bound for other in limits)
    return f"{limit.score}.{limit.bound}" if two else limit.score


def decide(scores: Mapping[str, float], limits: Sequence[Limit]) -> Verdict:
    """The verdict of the first limit that fails. A limit whose score is absent does not apply."""
    for limit in limits:
        value = scores.get(limit.score)
        if value is None:
            continue
        if value < limit.threshold if limit.bound == "min" else value > limit.threshold:
            return Verdict(False, rule_name(limit, limits), value, limit.threshold, limit.bound)
    return KEEP
