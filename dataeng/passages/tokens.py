"""A text as exact tokens with their places, and which runs of tokens stand for it (winnowing).

A token is what stands between white space, unchanged: case, punctuation, digits and accents count, the amount and
kind of white space does not. In scripts written without spaces (as ``dedup.normalise`` lists them) each character,
with the marks that follow it, is a token of its own.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataeng.dedup import normalise
from dataeng.dedup.hashing import hash_shingles, mix
from dataeng.jit import compiled

SPACE, PLAIN, LETTER, ALONE, MARK = range(5)
_TABLED = 0x20000
_ALONE_FLAG = 1 << 31  # in ``normalise.table``: a character that is a word of its own
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Integers = NDArray[np.int64]


class Tokens(NamedTuple):
    """Where each token begins and ends (in characters), its 64-bit hash, and whether it holds a letter."""

    starts: Integers
    ends: Integers
    hashes: NDArray[np.uint64]
    letters: NDArray[np.bool_]


def _kind(character: str, alone: bool) -> int:
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Cf"):
        return MARK
    if character.isspace():
        return SPACE
    if alone:
        return ALONE
    return LETTER if category[0] == "L" else PLAIN


@cache
def kinds() -> NDArray[np.uint8]:
    """SPACE, PLAIN, LETTER, ALONE or MARK for each code point below 0x20000, and ALONE for all above (Han)."""
    alone = (normalise.table() & np.uint32(_ALONE_FLAG)) != 0
    return np.array([*(_kind(chr(code), bool(alone[code])) for code in range(_TABLED)), ALONE], np.uint8)


def is_alone(character: str) -> bool:
    """Whether a character stands in a script that puts no space between words."""
    return bool(kinds()[min(ord(character), _TABLED)] == ALONE)


@compiled("Tuple((int64[::1], int64[::1], uint64[::1], boolean[::1]))(uint32[::1], uint8[::1])")
def _tokens(codes: Any, kinds_of: Any) -> Any:
    starts, ends = np.empty(codes.size, np.int64), np.empty(codes.size, np.int64)
    hashes, letters = np.empty(codes.size, np.uint64), np.empty(codes.size, np.bool_)
    count, length, single, letter, state = 0, 0, False, False, np.uint64(0)
    for index in range(codes.size + 1):
        kind = SPACE if index == codes.size else kinds_of[min(codes[index], np.uint32(_TABLED))]
        if length and kind != MARK and (single or kind in (SPACE, ALONE)):
            starts[count], ends[count], hashes[count], letters[count] = index - length, index, mix(state), letter
            count += 1
            length, single, letter, state = 0, False, False, np.uint64(0)
        if kind == SPACE:
            continue
        single = single or kind == ALONE
        letter = letter or kind in (ALONE, LETTER)
        state = (state ^ np.uint64(codes[index])) * _MULTIPLIER
        state ^= state >> np.uint64(32)
        length += 1
    return starts[:count].copy(), ends[:count].copy(), hashes[:count].copy(), letters[:count].copy()


def tokens(text: str) -> Tokens:
    """The tokens of a text, in order."""
    codes = np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), np.uint32)
    return Tokens(*_tokens(codes, kinds()))


@compiled("int64[::1](uint64[::1], int64)")
def _least(values: Any, width: Any) -> Any:
    count = max(0, values.size - width + 1)
    out = np.empty(count, np.int64)
    best = -1
    for place in range(count):
        last = place + width - 1
        if best < place:
            best = place
            for other in range(place + 1, last + 1):
                if values[other] <= values[best]:
                    best = other
        elif values[last] < values[best]:
            best = last
        out[place] = best
    return out


def winnow(found: Tokens, length: int) -> tuple[NDArray[np.uint64], Integers]:
    """Hashes of all runs of ``length // 2`` tokens, and for each window of ``length`` the run that stands for it.

    That is the run of least hash inside the window (Schleimer, Wilkerson, Aiken: Winnowing, SIGMOD 2003: with runs of
    k tokens and w of them a window, k + w - 1 = ``length``), so equal windows have runs of equal hashes, wherever they
    stand. About 2 / (w + 1) of all runs stand for a window.
    """
    run = max(1, length // 2)
    hashes = hash_shingles(found.hashes, run)
    return hashes, _least(hashes, length - run + 1)
