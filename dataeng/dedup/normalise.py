"""A text as deduplication sees it: its exact hash, and its words as 64-bit hashes.

Words: the text in NFD without marks (category Mn, Me), in lower case, every decimal digit a 0; letters and
numbers make words, and all else (punctuation, symbols, white space, controls) stands between them; format
characters (soft hyphen, joiners) vanish. Scripts that put no space between words have each character as a
word of its own: Han, Hiragana, Katakana, Yi, Thai, Lao, Khmer, Myanmar, Tibetan. So a page in them has
shingles of five characters.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.dedup.hashing import ALONE, EXPANDED, REMOVED, SEPARATOR, fold_space, hash_words

VERSION = 1  # raised whenever words or their hashes change: signatures of other versions do not compare
UNICODE = unicodedata.unidata_version
_TABLED = 0x20000  # code points from here on: Han to 0x40000, nothing that is a word above

# Ranges of scripts written without spaces between words (Unicode blocks, both ends included).
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),
    (0x3021, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0xA4CF),  # Han, Yi
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),  # Myanmar extended
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
)


def _entry(character: str) -> int:
    """What stands for a character that NFD leaves as it is."""
    category, code = unicodedata.category(character), ord(character)
    if category in ("Mn", "Me", "Cf"):
        return int(REMOVED)
    if category == "Nd":
        return ord("0")
    if category[0] not in "LN" and category != "Mc":
        return int(SEPARATOR)
    if any(first <= code <= last for first, last in _UNSPACED):
        return code | int(ALONE)
    return ord(character.lower()[0])


def _entry_of_any(character: str) -> int:
    """What stands for a character: for one that NFD takes apart, what is left of it if that is one.

    EXPANDED marks those of which more is left (Hangul syllables, some Indic vowels, Han beyond the table) and marks
    with a place of their own in NFD's order: a text with them must be brought to NFD itself.
    """
    if unicodedata.is_normalized("NFD", character) and not unicodedata.combining(character):
        return _entry(character)
    parts = [part for part in unicodedata.normalize("NFD", character) if _entry(part) != REMOVED]
    if not parts:
        return int(REMOVED)
    if len(parts) > 1 or ord(parts[0]) >= _TABLED or unicodedata.combining(parts[0]):
        return _entry(character) | int(EXPANDED)
    return _entry(parts[0])


@cache
def table() -> NDArray[np.uint32]:
    """For each code point below 0x20000 SEPARATOR, REMOVED, or its lower case (| ALONE, | EXPANDED)."""
    return np.array([_entry_of_any(chr(code)) for code in range(_TABLED)], np.uint32)


@cache
def _space_kinds() -> NDArray[np.uint8]:
    """What ``fold_space`` asks of each byte of UTF-8."""
    kinds = [int(code < 128 and chr(code).isspace()) for code in range(256)]
    for lead in (0xC2, 0xE1, 0xE2, 0xE3):
        kinds[lead] = 2
    return np.array(kinds, np.uint8)


def exact_hash(text: str) -> bytes:
    """SHA-256 (32 bytes) of the text in NFC with white space folded, and nothing else changed."""
    plain = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
    return hashlib.sha256(fold_space(_writable(plain, np.uint8), _space_kinds())).digest()


def word_hashes(text: str) -> NDArray[np.uint64]:
    """A 64-bit hash for each word of the text, in order."""
    if text.isascii():
        return np.asarray(hash_words(_writable(text.encode("ascii"), np.uint8), table(), True)[0])
    found, right = hash_words(_codes(text), table(), False)
    if not right:
        found, _ = hash_words(_codes(unicodedata.normalize("NFD", text)), table(), True)
    return np.asarray(found)


def _codes(text: str) -> NDArray[np.uint32]:
    return _writable(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _writable(data: bytes, kind: type[np.generic]) -> NDArray[Any]:
    """The compiled loops take writable arrays only."""
    return np.frombuffer(bytearray(data), kind)
