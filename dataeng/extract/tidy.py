"""Text as documents hold it: NFC, no control characters, white space in order."""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls but tab and newline, soft hyphen, zero-width space, byte order mark, noncharacters, surrogates.
_NOT_TEXT = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]"
)
_NEWLINES = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SPACES = re.compile(r"[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_LINE_ENDS = re.compile(r"(?<![ \t])[ \t]++$", re.MULTILINE)  # tried once in each run of spaces
_BLANK_LINES = re.compile(r"\n{3,}")
_MOST_MARKS = 30  # in a row on one letter, https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format
_SIGNS = re.compile(rf"[^\w\s!-~]{{{_MOST_MARKS + 1},}}")  # where more of them can be


def _fewer_marks(signs: re.Match[str]) -> str:
    """Signs without the marks past the bound: the cost of putting marks in order is their number squared."""
    kept, marks = [], 0
    for sign in signs[0]:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks <= _MOST_MARKS:
            kept.append(sign)
    return "".join(kept)


def tidy(text: str) -> str:
    """``text`` in NFC with plain spaces and newlines; indentation stays, as code needs it."""
    text = _NEWLINES.sub("\n", text)
    text = _SPACES.sub(" ", _NOT_TEXT.sub("", text))
    text = unicodedata.normalize("NFC", text if text.isascii() else _SIGNS.sub(_fewer_marks, text))
    return _BLANK_LINES.sub("\n\n", _LINE_ENDS.sub("", text)).strip("\n \t")


def one_line(text: str, most: int = 500) -> str:
    """A short field (title, author): tidied, on one line, at most so many characters."""
    return " ".join(tidy(text).split())[:most]
