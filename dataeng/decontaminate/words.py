"""Words as decontamination compares them: copies that differ in case, marks or number format are equal."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_GROUPED = re.compile(r"(?<=\d)[,'’\u00a0\u202f\u2009](?=\d{3}(?!\d))")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_])")
_CJK = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile(r"[a-z0-9]+")


@cache
def _word() -> re.Pattern[str]:
    marks = "".join(char for code in range(0x300, 0x10000) if unicodedata.category(char := chr(code))[0] == "M")
    return re.compile(f"[{_CJK}]|(?:[^\\W_{_CJK}][{marks}]*)+")


def words(text: str) -> list[str]:
    """The words of a text: NFKC, case-folded, without punctuation; ``1,000`` is ``1000``.

    Han and kana are words of one character each. Letters keep the marks that follow them.
    """
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _APOSTROPHE.sub("", _GROUPED.sub("", text))
    return _ASCII_WORD.findall(text) if text.isascii() else _word().findall(text)
