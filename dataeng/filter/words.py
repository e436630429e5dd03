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

# Ranges for regular expressions: Han with kana; Thai and Lao, Burmese, Khmer; marks that join a word before.
_HAN = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_SOUTH_EAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_MARKS = r"\u3001\u3002\u3008-\u3011\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_HANGUL = r"\uac00-\ud7a3"
_PIECE = re.compile(f"(?:[{_HAN}]{{1,2}}|[{_SOUTH_EAST}]{{1,4}})[{_MARKS}]*")
_UNSPACED = re.compile(f"[{_HAN}{_SOUTH_EAST}]")
_WIDE = re.compile(f"[{_HAN}{_HANGUL}]")
_SYLLABLE = re.compile(f"[{_HANGUL}]")
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
