"""Vectors of small integers, so that every dot product is exact: no order of adding up, no batch changes a bit.

Real vectors are scaled to a largest component of 127 and rounded. In 256 dimensions that moves a cosine by about
5e-5. Products of two such vectors stay below 2^24 up to 1,040 dimensions, where float32 holds them exactly; above that
float64 is taken. Letters: N vectors, K centres, D dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.jit import compiled

Vectors = NDArray[np.int8]
LARGEST = 127
_EXACT_DIMENSIONS = ((1 << 24) - 1) // LARGEST**2
_UNIT = 1 << 16  # what a vector's length is taken for in sums, which are of whole numbers
_TILE = 256  # rows of a matrix of cosines
_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio (Knuth, TAOCP 6.4)


def quantised(vector: NDArray[Any]) -> Vectors | None:
    """A real vector in 8 bits a component, or None for one without direction."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if not 0 < largest < np.inf:
        return None
    return np.rint(vector * (LARGEST / largest)).astype(np.int8)


def squares(vectors: Vectors) -> NDArray[np.float64]:
    """Squared lengths of vectors in ND, exact."""
    wide = vectors.astype(np.int32)
    return (wide * wide).sum(axis=-1).astype(np.float64)


def exact(vectors: Vectors) -> NDArray[Any]:
    """The vectors in a type in which their products are exact."""
    return vectors.astype(np.float32 if vectors.shape[-1] <= _EXACT_DIMENSIONS else np.float64)


def cosines(left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """The cosines of ND and KD vectors, as NK."""
    dots = (exact(left) @ exact(right).T).astype(np.float64)
    return dots / np.sqrt(np.outer(squares(left), squares(right)))  # of equal vectors exactly 1


@compiled("void(int8[:, ::1], int64[::1], float64[::1], int64[:, ::1])")
def _add(vectors: Any, clusters: Any, scales: Any, sums: Any) -> None:
    for n in range(vectors.shape[0]):
        for d in range(vectors.shape[1]):
            sums[clusters[n], d] += int(np.rint(vectors[n, d] * scales[n]))


def _draw(seed: int, number: int) -> float:
    """A number in [0, 1) that follows from a seed and a place in its stream (splitmix64)."""
    value = (seed * 0xD6E8FEB86659FD93 + _STEP * (number + 1)) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return ((value ^ (value >> 31)) >> 11) / 2**53


def _seeds(vectors: Vectors, wide: NDArray[Any], sizes: NDArray[np.float64], k: int, seed: int) -> Vectors:
    """k-means++ (Arthur, Vassilvitskii 2007): centres drawn by their squared distance, 2 - 2 cos, from those before."""
    chosen = [int(_draw(seed, 0) * len(vectors))]
    away = np.full(len(vectors), np.inf)
    while len(chosen) < k:
        last = chosen[-1]
        near = (wide @ wide[last]).astype(np.float64) / (sizes * sizes[last])
        np.minimum(away, np.maximum(0.0, 1.0 - near), out=away)
        up_to = np.cumsum(away)
        if up_to[-1] <= 1e-9:  # all vectors have a centre of their own direction
            break
        place = int(np.searchsorted(up_to, _draw(seed, len(chosen)) * up_to[-1], side="right"))
        chosen.append(min(place, len(vectors) - 1))
    return vectors[chosen]


def nearest(vectors: Vectors, centres: Vectors) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each vector the centre of highest cosine (the first of equals), and that cosine."""
    best, cosine = np.empty(len(vectors), np.int64), np.empty(len(vectors))
    for start in range(0, len(vectors), _TILE):
        found = cosines(vectors[start : start + _TILE], centres)
        rows = found.argmax(axis=1)
        best[start : start + _TILE], cosine[start : start + _TILE] = rows, found[np.arange(len(rows)), rows]
    return best, cosine


def kmeans(vectors: Vectors, k: int, iterations: int, seed: int) -> Vectors:
    """Centres (at most k, as KD) by spherical k-means (Dhillon, Modha 2001), the same for the same vectors in order.

    Bytes: 5 to 9 a component of the vectors. Time: 2 N K D additions and multiplications a round, and for the seeds.
    """
    sizes = np.sqrt(squares(vectors))
    centres = _seeds(vectors, exact(vectors), sizes, k, seed)
    for _ in range(iterations):
        sums = np.zeros((len(centres), vectors.shape[1]), np.int64)
        _add(vectors, nearest(vectors, centres)[0], _UNIT / sizes, sums)
        moved = np.stack([
            centre if (new := quantised(total)) is None else new for total, centre in zip(sums, centres, strict=True)
        ])  # fmt: skip
        if (moved == centres).all():
            break
        centres = moved
    return centres


def matches(vectors: Vectors, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For vectors in order of rank: which one before it, that stays, each goes for (-1: it stays), and the cosine.

    A vector goes where one before it that stays has at least the threshold; it names the nearest of those (the first
    of equals). So no vector goes for one that goes itself. Bytes: 24 x 256 for each that stays.
    """
    matched, similarity = np.full(len(vectors), -1, np.int64), np.zeros(len(vectors))
    stays = np.empty(0, np.int64)
    for start in range(0, len(vectors), _TILE):
        tile = np.arange(start, min(start + _TILE, len(vectors)))
        if stays.size:
            found = cosines(vectors[tile], vectors[stays])
            best = found.argmax(axis=1)
            high = found[np.arange(len(tile)), best]
            goes = high >= threshold
            matched[tile[goes]], similarity[tile[goes]] = stays[best[goes]], high[goes]
        inside = cosines(vectors[tile], vectors[tile])
        kept = np.zeros(len(tile), bool)
        for n, place in enumerate(tile):
            row = np.where(kept[:n], inside[n, :n], -1.0)
            best_inside = int(row.argmax()) if n else 0
            if n and row[best_inside] >= threshold and row[best_inside] > similarity[place]:
                matched[place], similarity[place] = tile[best_inside], row[best_inside]
            kept[n] = matched[place] < 0
        stays = np.concatenate([stays, tile[kept]])
    return matched, similarity
