"""Repetition inside a text, over hashes of its words, lines or paragraphs: compiled loops.

Each looks its keys up in an open-addressing table of at least twice their number, so that the cost
is linear in the text. Hashes have 64 bits: two different keys are taken for equal once in 10^19.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataeng.jit import compiled

_FACTOR = np.uint64(0xD6E8FEB86659FD93)  # the polynomial's base: odd, bits evenly spread
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@compiled()
def _places(keys: Any) -> Any:
    """For each key the number of the first key that equals it."""
    bits = 3
    while (1 << bits) < 2 * keys.size:
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    slots = np.full(1 << bits, -1, np.int32)
    firsts = np.empty(keys.size, np.int32)
    for i in range(keys.size):
        slot = np.int64((keys[i] * _GOLDEN) >> shift)
        while slots[slot] >= 0 and keys[slots[slot]] != keys[i]:
            slot = (slot + 1) & mask
        if slots[slot] < 0:
            slots[slot] = i
        firsts[i] = slots[slot]
    return firsts


@compiled()
def copies(keys: Any, lengths: Any) -> Any:
    """How many keys equal one before, the characters of those, and of all."""
    firsts = _places(keys)
    count, characters, total = 0, 0, 0
    for i in range(keys.size):
        total += lengths[i]
        if firsts[i] != i:
            count += 1
            characters += lengths[i]
    return count, characters, total


@compiled()
def different(keys: Any, sought: Any) -> Any:
    """How many of the sorted ``sought`` occur among the keys."""
    seen = np.zeros(sought.size, np.bool_)
    for key in keys:
        place = np.searchsorted(sought, key)
        if place < sought.size and sought[place] == key:
            seen[place] = True
    return seen.sum()


@compiled()
def _top(firsts: Any, counts: Any, starts: Any, n: Any, ends: Any) -> Any:
    """The most frequent n-gram, by the number of its first: of equals the longest, then the first in the text."""
    best, length = -1, 0
    for i in range(firsts.size):
        if firsts[i] == i and counts[i] > 1 and (best < 0 or counts[i] >= counts[best]):
            own = ends[starts[i] + n] - ends[starts[i]]
            if best < 0 or counts[i] > counts[best] or own > length:
                best, length = i, own
    return best


@compiled()
def _covered(firsts: Any, best: Any, starts: Any, n: Any, ends: Any) -> Any:
    """Characters under n-grams, none counted twice: under those of ``best``, or under every copy if it is −1."""
    total, reached = 0, 0  # reached: the words before it are counted
    for i in range(firsts.size):
        if firsts[i] == best or (best < 0 and firsts[i] != i):
            total += ends[starts[i] + n] - ends[max(starts[i], reached)]
            reached = starts[i] + n
    return total


@compiled()
def n_grams(words: Any, lengths: Any) -> Any:
    """Characters covered by the top 2- to 4-gram and by duplicate 5- to 10-grams (nine numbers), and of all words.

    An n-gram can only occur twice where its first n − 1 words do: each round looks at the starts
    that the last one left. Hashes are polynomials of the words' hashes.
    """
    found = np.zeros(9, np.int64)
    ends = np.zeros(words.size + 1, np.int64)
    for i in range(words.size):
        ends[i + 1] = ends[i] + lengths[i]
    starts, hashes, size = np.arange(words.size), words.copy(), words.size
    for n in range(2, 11):
        left = 0
        for i in range(size):
            if starts[i] + n <= words.size:
                starts[left] = starts[i]
                hashes[left] = hashes[i] * _FACTOR + words[starts[i] + n - 1]
                left += 1
        firsts = _places(hashes[:left])
        counts = np.zeros(left, np.int32)
        for first in firsts:
            counts[first] += 1
        best = _top(firsts, counts, starts, n, ends) if n <= 4 else -1
        if n > 4 or best >= 0:
            found[n - 2] = _covered(firsts, best, starts, n, ends)
        size = 0
        for i in range(left):
            if counts[firsts[i]] > 1:
                starts[size], hashes[size] = starts[i], hashes[i]
                size += 1
        if size == 0:
            break
    return found, ends[-1]
