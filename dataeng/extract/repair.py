"""Mojibake repair: text whose bytes were once read with the wrong encoding, line by line, only where it is certain."""

from __future__ import annotations

from ftfy import fix_encoding
from ftfy.badness import badness, is_bad


def _repaired_line(line: str) -> str:
    """The line with its encoding repaired; unchanged where the repair does not take every sign of mojibake away."""
    fixed = fix_encoding(line)
    sound = len(fixed) < len(line) and "\ufffd" not in fixed and badness(fixed) == 0
    return fixed if sound else line


def repaired(text: str) -> tuple[str, int]:
    """``text`` with mojibake undone, and the number of lines that it stood in.

    Wrongly read UTF-8 is longer than what it stands for, so a repair that does not shorten a line is none.
    """
    if text.isascii() or not is_bad(text):
        return text, 0
    lines = text.split("\n")
    fixed = [line if line.isascii() or not is_bad(line) else _repaired_line(line) for line in lines]
    changed = sum(new != old for new, old in zip(fixed, lines, strict=True))
    return ("\n".join(fixed), changed) if changed else (text, 0)
