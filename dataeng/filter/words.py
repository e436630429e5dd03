"""What a word is, for the rules that count them.

A word is a token between white space, with the punctuation that touches it. Scripts without
spaces are cut into pieces from the start of each run: two characters of Han and kana (a Chinese
word has 1.7 on average), four of Thai, Lao, Khmer and Burmese. Korean has spaces. Lines are what
stands between newlines, paragraphs what stands between blank lines; blank ones do not count, nor
does white space at their ends. ``filter.scan`` finds them.
"""

from __future__ import annotations

import re

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


def span_class(*ranges: tuple[int, int]) -> str:
    """Ranges of code points as they stand between the brackets of a regular expression."""
    return "".join(f"\\U{start:08x}-\\U{end:08x}" for start, end in ranges)


_UNSPACED = re.compile(f"[{span_class(*HAN, *SOUTH_EAST)}]")


def unspaced_count(text: str) -> int:
    """Characters of scripts that are written without spaces."""
    return 0 if text.isascii() else len(_UNSPACED.findall(text))
