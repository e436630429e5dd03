"""Words and lines of a text as the rules count them, computed once a document.

A word is a token between white space, with the punctuation that touches it. Scripts without
spaces are cut into pieces from the start of each run: two characters of Han and kana (a Chinese
word has 1.7 on average), four of Thai, Lao, Khmer and Burmese. Korean has spaces.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np

# Ranges of code points: Han with kana; Thai and Lao, Burmese, Khmer; marks that join a word before; Hangul.
HAN = (
    *((0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F)),
    (0x20000, 0x3FFFF),
)
SOUTH_EAST = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
MARKS = (
    *((0x3001, 0x3002), (0x3008, 0x3011), (0x3014, 0x301F), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40)),
    (0xFF5B, 0xFF65),
)
HANGUL = ((0xAC00, 0xD7A3),)


def _class(*ranges: tuple[int, int]) -> str:
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in ranges)


_PIECE = re.compile(f"(?:[{_class(*HAN)}]{{1,2}}|[{_class(*SOUTH_EAST)}]{{1,4}})[{_class(*MARKS)}]*")
_UNSPACED = re.compile(f"[{_class(*HAN, *SOUTH_EAST)}]")
_WIDE = re.compile(f"[{_class(*HAN, *HANGUL)}]")
_SYLLABLE = re.compile(f"[{_class(*HANGUL)}]")
_PARAGRAPH = re.compile(r"\n\s*\n")


@lru_cache(maxsize=2)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text."""
    if not text.isascii() and _UNSPACED.search(text):
        text = _PIECE.sub(r" \g<0> ", text)
    return tuple(text.split())


@lru_cache(maxsize=2)
def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a text that are not blank, without white space at their ends."""
    return tuple(line for raw in text.split("\n") if (line := raw.strip()))


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a text: what stands between blank lines."""
    return [part for raw in _PARAGRAPH.split(text) if (part := raw.strip())]


def unspaced_count(text: str) -> int:
    """Characters of scripts that are written without spaces."""
    return 0 if text.isascii() else len(_UNSPACED.findall(text))


def columns(text: str) -> int:
    """The width of a text, where Han, kana and Hangul count double (they say twice as much)."""
    return len(text) if text.isascii() else len(text) + len(_WIDE.findall(text))


def hangul_count(text: str) -> int:
    """Hangul syllables, each of two or three letters."""
    return 0 if text.isascii() else len(_SYLLABLE.findall(text))


@dataclass(frozen=True)
class Numbered:
    """The words of a text by number: ``ids[i]`` is that of word i in ``different``, in order of appearance."""

    different: list[str]
    ids: np.ndarray  # int64
    lengths: np.ndarray  # int64, characters of word i


@lru_cache(maxsize=2)
def numbered(text: str) -> Numbered:
    """The words of a text as numbers, equal where the words are."""
    words = words_of(text)
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    ids = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    different = list(numbers)
    lengths = np.fromiter(map(len, different), np.int64, len(different))
    return Numbered(different, ids, lengths[ids])
