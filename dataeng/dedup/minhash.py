"""MinHash signatures: shingle sets, permutations drawn from a seed, bands."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from dataeng.dedup import Config
from dataeng.dedup.hashing import distinct, fold_bands, hash_shingles, minima, mix
from dataeng.dedup.normalise import word_hashes

Hashes = NDArray[np.uint64]
_STEP = 0x9E3779B97F4A7C15


def shingles(text: str, words: int = 5) -> Hashes:
    """The set of a text's shingles as 64-bit hashes, sorted; none where it has fewer words.

    Two different shingles share a hash with a probability of about 2^-64, so the Jaccard of these sets
    is that of the shingles themselves.
    """
    found = hash_shingles(word_hashes(text), words)
    found.sort()
    return np.asarray(distinct(found))


@cache
def permutations(seed: int, count: int) -> tuple[Hashes, Hashes]:
    """Factors (odd) and summands of ``count`` permutations x -> a x + b mod 2^64, by splitmix64 from a seed."""
    draws = [int(mix(np.uint64((seed + _STEP * (index + 1)) % 2**64))) for index in range(2 * count)]
    return np.array(draws[:count], np.uint64) | np.uint64(1), np.array(draws[count:], np.uint64)


def signature(values: Hashes, seed: int, count: int) -> Hashes:
    """The MinHash signature of a set of hashes: one minimum for each of ``count`` permutations.

    The share of equal minima of two signatures estimates the Jaccard of their sets (Broder 1997).
    """
    return np.asarray(minima(values, *permutations(seed, count)))


def bands(values: Hashes, config: Config) -> Hashes:
    """The band hashes of a set: two sets of Jaccard J share one with probability 1 - (1 - J^rows)^bands."""
    found = fold_bands(signature(values, config.hash_seed, config.bands * config.rows), config.rows)
    return np.asarray(found) >> np.uint64(64 - config.hash_bits)
