"""What a classifier of two classes is worth, from its scores: precision and recall, the confusion table, ROC-AUC."""

from __future__ import annotations

from typing import Any

import numpy as np


def measured(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, Any]:
    """Both classes' precision, recall and F1 and the confusion table at the threshold; ROC-AUC; the curve."""
    points = np.unique(np.append(np.round(np.linspace(0.05, 0.95, 19), 2), threshold))
    curve = [{"threshold": float(point)} | _at(scores > point, labels) for point in points]
    called = scores > threshold
    return {
        "examples": len(labels),
        "positives": int(labels.sum()),
        "confusion": {
            "true_positives": int((called & labels).sum()),
            "false_negatives": int((~called & labels).sum()),
            "false_positives": int((called & ~labels).sum()),
            "true_negatives": int((~called & ~labels).sum()),
        },
        "roc_auc": round(roc_auc(scores, labels), 4),
        "positive": _at(called, labels),
        "negative": _at(~called, ~labels),
        "curve": curve,
    }


def _at(called: np.ndarray, true: np.ndarray) -> dict[str, float]:
    hits = int((called & true).sum())
    precision, recall = hits / max(int(called.sum()), 1), hits / max(int(true.sum()), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {"precision": round(precision, 4), "recall": round(recall, 4), "f1": round(f1, 4)}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The probability that a positive scores above a negative, ties counting half (Mann–Whitney)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
