"""Compiled loops over 64-bit words: hashes of words and shingles, MinHash, and Jaccard in groups.

All sums and products are modulo 2^64. Compiled once and kept beside the source where that can be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataeng.jit import compiled

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd (Knuth, TAOCP 6.4)
_BASE = np.uint64(0xD6E8FEB86659FD93)  # the polynomial's base: odd, bits evenly spread
_SEPARATOR, _REMOVED, _ALONE = np.uint32(0), np.uint32(1), np.uint32(1 << 31)


@compiled("uint64(uint64)")
def mix(value: Any) -> Any:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection whose output bits look random."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled("uint64[::1](uint32[::1])")
def hash_words(codes: Any) -> Any:
    """Hashes of the words in code points as ``normalise.table`` maps them."""
    out = np.empty(codes.size, np.uint64)
    count, length, state = 0, 0, np.uint64(0)
    for code in codes:
        if code == _REMOVED:
            continue
        if code == _SEPARATOR or code & _ALONE:
            if length:
                out[count] = mix(state)
                count += 1
            length, state = 0, np.uint64(0)
            if code & _ALONE:
                out[count] = mix((np.uint64(code) + np.uint64(1)) * _MULTIPLIER)
                count += 1
            continue
        state = (state ^ np.uint64(code)) * _MULTIPLIER
        state ^= state >> np.uint64(32)
        length += 1
    if length:
        out[count] = mix(state)
        count += 1
    return out[:count].copy()


@compiled("uint64[::1](uint64[::1], int64)")
def hash_shingles(words: Any, n: Any) -> Any:
    """A hash for each run of ``n`` words: a rolling polynomial of their hashes, finalised. Not distinct."""
    count = max(0, words.size - n + 1)
    out = np.empty(count, np.uint64)
    top = np.uint64(1)
    for _ in range(n - 1):
        top *= _BASE
    state = np.uint64(0)
    for index in range(words.size):
        if index >= n:
            state -= words[index - n] * top
        state = state * _BASE + words[index]
        if index >= n - 1:
            out[index - n + 1] = mix(state)
    return out


@compiled("uint64[::1](uint64[::1], uint64[::1], uint64[::1])")
def minima(values: Any, a: Any, b: Any) -> Any:
    """For each permutation i the least of a[i] x + b[i] over the values; all ones where there are none."""
    out = np.full(a.size, np.uint64(0xFFFFFFFFFFFFFFFF))
    for value in values:
        for index in range(a.size):
            out[index] = min(out[index], a[index] * value + b[index])
    return out


@compiled("uint64[::1](uint64[::1], int64)")
def fold_bands(signature: Any, rows: Any) -> Any:
    """One hash for each run of ``rows`` values of a signature."""
    out = np.empty(signature.size // rows, np.uint64)
    for band in range(out.size):
        state = np.uint64(band + 1) * _MULTIPLIER
        for row in range(rows):
            state = mix((state ^ signature[band * rows + row]) * _BASE)
        out[band] = state
    return out


@compiled("float64(uint64[::1], uint64[::1], float64)")
def jaccard_from(left: Any, right: Any, threshold: Any) -> Any:
    """Exact Jaccard of two sorted sets, or 0 as soon as it cannot reach the threshold."""
    total = left.size + right.size
    if left.size == 0 or right.size == 0:
        return 0.0
    need = threshold * total / (1.0 + threshold) - 1e-6
    i, j, common = 0, 0, 0
    while i < left.size and j < right.size:
        if left[i] == right[j]:
            common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
        if common + min(left.size - i, right.size - j) < need:
            return 0.0
    found = common / (total - common)
    return found if found >= threshold else 0.0


@compiled("int64(int64[::1], int64)")
def _find(parents: Any, node: Any) -> Any:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@compiled("Tuple((int64[::1], int64[::1], float64[::1]))(uint64[::1], int64[::1], int64[::1], float64)")
def compare_groups(values: Any, bounds: Any, groups: Any, threshold: Any) -> Any:
    """Compare the sets of each group all with all.

    Set i is ``values[bounds[i]:bounds[i + 1]]``, sorted and distinct; group g holds the sets from
    ``groups[g]`` to ``groups[g + 1]``. Returns for each set the least set of its component, its nearest
    neighbour at or above the threshold (the earlier of equals; -1 where there is none) and their Jaccard.
    """
    count = bounds.size - 1
    roots, nearest, similarity = np.arange(count), np.full(count, -1), np.zeros(count)
    for group in range(groups.size - 1):
        for i in range(groups[group], groups[group + 1]):
            left = values[bounds[i] : bounds[i + 1]]
            for j in range(i + 1, groups[group + 1]):
                found = jaccard_from(left, values[bounds[j] : bounds[j + 1]], threshold)
                if found == 0.0:
                    continue
                if found > similarity[i]:
                    similarity[i], nearest[i] = found, j
                if found > similarity[j]:
                    similarity[j], nearest[j] = found, i
                one, other = _find(roots, i), _find(roots, j)
                roots[max(one, other)] = min(one, other)
        for i in range(groups[group], groups[group + 1]):
            roots[i] = _find(roots, i)
    return roots, nearest, similarity
