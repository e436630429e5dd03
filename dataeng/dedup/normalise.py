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

import numpy as np
from numpy.typing import NDArray

from dataeng.dedup.hashing import hash_words

VERSION = 1  # raised whenever words or their hashes change: signatures of other versions do not compare
UNICODE = unicodedata.unidata_version
SEPARATOR, REMOVED, ALONE = 0, 1, 1 << 31  # what the table says of a code point, else its lower case
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


def _entry(code: int) -> int:
    character = chr(code)
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Cf"):
        return REMOVED
    if category == "Nd":
        return ord("0")
    if category[0] not in "LN" and category != "Mc":
        return SEPARATOR
    if any(first <= code <= last for first, last in _UNSPACED):
        return code | ALONE
    return ord(character.lower()[0])


@cache
def table() -> NDArray[np.uint32]:
    """What stands for each code point below 0x20000: SEPARATOR, REMOVED, or its lower case (| ALONE)."""
    return np.array([_entry(code) for code in range(_TABLED)], np.uint32)


def exact_hash(text: str) -> bytes:
    """SHA-256 (32 bytes) of the text in NFC with white space folded, and nothing else changed."""
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest()


def word_hashes(text: str) -> NDArray[np.uint64]:
    """A 64-bit hash for each word of the text, in order."""
    if text.isascii():
        return hash_words(table()[np.frombuffer(text.encode("ascii"), np.uint8)])
    plain = unicodedata.normalize("NFD", text)
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32)
    mapped = table()[np.minimum(codes, _TABLED - 1)]
    beyond = codes >= _TABLED
    if beyond.any():
        mapped = np.where(beyond, np.where(codes < 0x40000, codes | np.uint32(ALONE), SEPARATOR), mapped)
    return hash_words(mapped.astype(np.uint32))
