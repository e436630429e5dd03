"""Mojibake repair: text whose bytes were once read with the wrong encoding, line by line, only where it is certain."""

from __future__ import annotations

import re

from ftfy import fix_encoding
from ftfy.badness import badness, is_bad

# What UTF-8 looks like when it was read as Windows-1252 or ISO 8859-1: the character of a leading byte, then that of
# a continuation byte; and as Windows-1251: Cyrillic capitals at every other place.
_SUSPECT = re.compile(
    r"[\xc2-\xf4][\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
    r"|(?:[\u0420\u0421][\x80-\xbf\u0401-\u040f\u0410-\u043f\u0451-\u045f\u0490\u0491\u2013-\u203a\u20ac\u2116\u2122]){4}"
)


def _repaired_line(line: str) -> str:
    """The line with its encoding repaired; unchanged where the repair does not take every sign of mojibake away."""
    fixed = fix_encoding(line)
    sound = len(fixed) < len(line) and "\ufffd" not in fixed and badness(fixed) == 0
    return fixed if sound else line


def repaired(text: str) -> tuple[str, int]:
    """``text`` with mojibake undone, and the number of lines that it stood in.

    Wrongly read UTF-8 is longer than what it stands for, so a repair that does not shorten a line is none.
    """
    if text.isascii() or not _SUSPECT.search(text):
        return text, 0
    lines = text.split("\n")
    fixed = [_repaired_line(line) if _SUSPECT.search(line) and is_bad(line) else line for line in lines]
    changed = sum(new != old for new, old in zip(fixed, lines, strict=True))
    return ("\n".join(fixed), changed) if changed else (text, 0)
