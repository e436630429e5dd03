"""Trains a linear classifier (``filter.linear``) from labelled lines: regularised logistic regression.

Features are weighted by their inverse document frequency while training, which bounds how fast a rare one
learns; the product is what the model keeps, in steps of int8. Those seen in one example alone are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from dataeng.filter import linear

_FEWEST_EXAMPLES = 2


def features(lines: Sequence[str], bits: int) -> Any:
    """Counts of the features of each line: a CSR matrix (float64, lines × ``2**bits``)."""
    from scipy import sparse

    of_word = lru_cache(maxsize=1 << 20)(lambda word: (linear.word_features(word, bits), linear.word_hash(word)))
    columns, counts, ends = [], [], [0]
    for line in lines:
        known = [of_word(word) for word in line.split(" ")]
        pairs = linear.pair_features(np.array([number for _, number in known], np.uint32), bits)
        found, number = np.unique(np.concatenate([*(places for places, _ in known), pairs]), return_counts=True)
        columns.append(found.astype(np.int32))
        counts.append(number.astype(np.float64))
        ends.append(ends[-1] + len(found))
    parts = np.concatenate(counts), np.concatenate(columns), np.array(ends)
    return sparse.csr_matrix(parts, shape=(len(lines), 1 << bits))


def fit(matrix: Any, positive: np.ndarray, weight: np.ndarray, cost: float, passes: int) -> tuple[np.ndarray, float]:
    """Weights and bias of least ``cost`` × weighted log loss + half the squared weights, by L-BFGS."""
    from scipy import optimize

    sign, transposed = np.where(positive, 1.0, -1.0), matrix.T.tocsr()

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (matrix @ values[:-1] + values[-1])
        slope = -sign * weight / (1.0 + np.exp(np.minimum(margin, 500.0)))
        total = cost * float(weight @ np.logaddexp(0.0, -margin)) + 0.5 * float(values[:-1] @ values[:-1])
        return total, np.append(cost * (transposed @ slope) + values[:-1], cost * slope.sum())

    start = np.zeros(matrix.shape[1] + 1)
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": passes}).x
    return found[:-1], float(found[-1])


def train(
    lines: Sequence[str],
    positive: np.ndarray,
    weight: np.ndarray,
    labels: tuple[str, str],
    *,
    bits: int,
    power: float,
    cost: float,
    passes: int,
) -> linear.Linear:
    """A model of ``labels`` (negative, positive) from lines of tokens, which are positive or not and so heavy."""
    from scipy import sparse

    counts = features(lines, bits)
    seen = np.bincount(counts.indices, minlength=counts.shape[1])
    used = np.flatnonzero(seen >= _FEWEST_EXAMPLES)
    rarity = np.log((1 + len(lines)) / (1 + seen[used]))
    length = np.asarray(counts.sum(axis=1)).ravel()
    matrix = sparse.diags(length**-power) @ counts[:, used] @ sparse.diags(rarity)
    found, bias = fit(matrix.tocsr(), positive, weight, cost, passes)
    values = np.zeros(counts.shape[1])
    values[used] = found * rarity
    scale = float(np.abs(values).max()) / 127 or 1.0
    return linear.Linear(np.round(values / scale).astype(np.int8), scale, bias, power, labels)
