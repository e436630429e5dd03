"""Compiled loops over 64-bit words: hashes of words and shingles, MinHash, and Jaccard in groups.

All sums and products are modulo 2^64. Compiled once and kept beside the source where that can be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dataeng.jit import compiled

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd (Knuth, TAOCP 6.4)
_BASE = np.uint64(0xD6E8FEB86659FD93)  # the polynomial's base: odd, bits evenly spread
# What `normalise.table` says of a code point, else its lower case. ALONE and EXPANDED are bits, the rest are values.
SEPARATOR, REMOVED, EXPANDED, ALONE = np.uint32(0), np.uint32(1), np.uint32(1 << 30), np.uint32(1 << 31)
_HAN_BEYOND, _END_OF_HAN = np.uint32(0x20000), np.uint32(0x40000)  # planes 2 and 3: Han, and nothing else


@compiled("uint64(uint64)")
def mix(value: Any) -> Any:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection whose output bits look random."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


_WORDS = "Tuple((uint64[::1], boolean))({}[::1], uint32[::1], boolean)"


@compiled(_WORDS.format("uint8"), _WORDS.format("uint32"))
def hash_words(codes: Any, table: Any, normalised: Any) -> Any:
    """Hashes of the words in a text's code points by ``normalise.table``, and whether they are right.

    They are not, and left unfinished, where a text that is not ``normalised`` (NFD) holds code points for which
    no single entry can stand: those then have to be taken apart first.
    """
    out = np.empty(codes.size, np.uint64)
    count, inside, state = 0, False, np.uint64(0)
    for index in range(codes.size):
        code = np.uint32(codes[index])
        if code < table.size:
            code = table[code]
        else:
            code = (code | ALONE | EXPANDED) if _HAN_BEYOND <= code < _END_OF_HAN else SEPARATOR
        if code & EXPANDED:
            if not normalised:
                return out[:0].copy(), False
            code ^= EXPANDED
        if REMOVED < code < ALONE:
            state = (state ^ np.uint64(code)) * _MULTIPLIER
            state ^= state >> np.uint64(32)
            inside = True
        elif code != REMOVED:
            if inside:
                out[count] = mix(state)
                count, inside, state = count + 1, False, np.uint64(0)
            if code != SEPARATOR:
                out[count] = mix((np.uint64(code) + np.uint64(1)) * _MULTIPLIER)
                count += 1
    if inside:
        out[count] = mix(state)
        count += 1
    return out[:count].copy(), True


@compiled("int64(uint8[::1], int64)")
def _wide_space(text: Any, index: Any) -> Any:
    """Bytes of the white space of two or three bytes that begins here, or 0: U+0085, 00A0, 1680, 2000 … 3000."""
    first, left = text[index], text.size - index
    if first == 0xC2:
        return 2 if left > 1 and (text[index + 1] == 0x85 or text[index + 1] == 0xA0) else 0
    if left < 3:
        return 0
    second, third = text[index + 1], text[index + 2]
    found = first == 0xE1 and second == 0x9A and third == 0x80
    found |= first == 0xE3 and second == 0x80 and third == 0x80
    general = third <= 0x8A or third == 0xA8 or third == 0xA9 or third == 0xAF
    found |= first == 0xE2 and ((second == 0x80 and general) or (second == 0x81 and third == 0x9F))
    return 3 if found else 0


@compiled("uint8[::1](uint8[::1], uint8[::1])")
def fold_space(text: Any, kinds: Any) -> Any:
    """A UTF-8 text with each run of white space (as ``str.split`` sees it) one space, and none at its ends.

    ``kinds`` says of each byte whether it is white space (1), may begin white space of more bytes (2), or neither.
    """
    out = np.empty(text.size, np.uint8)
    count, before, index = 0, True, 0  # whether white space, or nothing, stands before
    while index < text.size:
        byte, space = text[index], kinds[text[index]]
        if space == 2:
            width = _wide_space(text, index)
            space = np.uint8(width > 0)
            index += max(width - 1, 0)
        # Without a branch on it: where words end cannot be foreseen.
        out[count] = np.uint8(32) if space else byte
        count += not (space and before)
        before = space > 0
        index += 1
    return out[: count - (before and count > 0)]


@compiled("uint64[::1](uint64[::1])")
def distinct(values: Any) -> Any:
    """A sorted array's values, each once."""
    out = np.empty(values.size, np.uint64)
    count = 0
    for index in range(values.size):
        out[count] = values[index]
        count += index + 1 == values.size or values[index + 1] != values[index]
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
    # The loop over the values stands inside, so that minima stay in registers; a value read serves two permutations.
    none = np.uint64(0xFFFFFFFFFFFFFFFF)
    out = np.empty(a.size, np.uint64)
    for index in range(0, a.size, 2):
        other = min(index + 1, a.size - 1)
        a0, b0, a1, b1 = a[index], b[index], a[other], b[other]
        least0, least1 = none, none
        for place in range(values.size):
            value = values[place]
            least0, least1 = min(least0, a0 * value + b0), min(least1, a1 * value + b1)
        out[index], out[other] = least0, least1
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


@compiled("int64[::1](int64, int64[::1], int64[::1])")
def components(count: Any, left: Any, right: Any) -> Any:
    """The least node of each node's component; edge i ties ``left[i]`` to ``right[i]``. Union-find with halving."""
    roots = np.arange(count)
    for edge in range(left.size):
        one, other = _find(roots, left[edge]), _find(roots, right[edge])
        roots[max(one, other)] = min(one, other)
    for node in range(count):
        roots[node] = _find(roots, node)
    return roots
