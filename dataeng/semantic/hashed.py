"""The embedding that needs no model: hashed runs of words, weighted by rarity, projected on random signs.

The cosine of two such vectors estimates that of their tf-idf vectors, with a standard error of about
(1 - cos^2) / sqrt(D) (Achlioptas 2003: signs serve as well as normal draws). It knows words, not meanings: it finds
texts that share most of their rare words in any order, and no paraphrase in other words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.dedup.hashing import hash_shingles, mix
from dataeng.dedup.normalise import word_hashes
from dataeng.jit import compiled
from dataeng.semantic.vectors import Vectors, quantised

BUCKETS = 1 << 20  # of words, for counting the documents that hold them: 4 MB


@compiled("void(uint64[::1], float64[::1], float64[::1])")
def _project(features: Any, weights: Any, out: Any) -> None:
    for n in range(features.size):
        state = features[n]
        for block in range(out.size // 64):
            state = mix(state + np.uint64(block + 1) * np.uint64(0x9E3779B97F4A7C15))
            for bit in range(64):
                sign = 2.0 * float((state >> np.uint64(bit)) & np.uint64(1)) - 1.0
                out[64 * block + bit] += sign * weights[n]


def buckets(text: str) -> NDArray[np.int64]:
    """The buckets of a text's words, each once."""
    return np.unique(word_hashes(text) % np.uint64(BUCKETS)).astype(np.int64)


def rarity(documents: NDArray[Any], count: int) -> NDArray[np.float32]:
    """The weight of each bucket's words, log(1 + count / documents that hold one); of those never seen 0."""
    held = np.maximum(documents, 1)
    return np.where(documents > 0, np.log1p(count / held), 0.0).astype(np.float32)


def embed(text: str, weights: NDArray[np.float32], dimensions: int, ngram_words: int) -> Vectors | None:
    """A text's vector; None where it has no words.

    A run of words weighs the mean of its words' rarities, times 1 + log of how often it stands in the text.
    """
    words = word_hashes(text)
    rare = np.concatenate([[0.0], np.cumsum(weights[(words % np.uint64(BUCKETS)).astype(np.int64)], dtype=np.float64)])
    out = np.zeros(dimensions)
    for n in range(1, min(ngram_words, words.size) + 1):
        found, first, times = np.unique(hash_shingles(words, n), return_index=True, return_counts=True)
        weight = (rare[first + n] - rare[first]) / n * (1 + np.log(times))
        _project(found, weight, out)
    return quantised(out)
