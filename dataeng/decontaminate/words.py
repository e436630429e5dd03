"""Words as decontamination compares them: copies that differ in case, marks, markup or number format are equal."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,30}\d{0,2});")
_INLINE_TAG = re.compile(r"</?(?:a|abbr|b|big|code|em|font|i|kbd|mark|q|s|small|span|strong|sub|sup|tt|u|var)"
                         r"(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)  # fmt: skip
_BLOCK_TAG = re.compile(r"</?(?:br|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|table|tbody|td|th|thead|tr|ul)"
                        r"(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)  # fmt: skip
_COMMAND = re.compile(  # of LaTeX: how a text is set, not what it says
    r"\\(?:text(?:bf|it|rm|tt|sf|sc|normal)?|math(?:rm|bf|it|bb|cal|sf|frak|tt)|emph|underline|[dt]?frac|left|right"
    r"|quad|qquad|displaystyle|operatorname|times|cdot|ldots|dots)(?![a-z])"
)
_ESCAPE = re.compile(r"\\(?:n(?!abla|u\b|eq?\b)|r(?!ho\b)|t(?!heta|au\b|o\b))")  # of strings in code and JSON
_CODED = re.compile(r"\\u([0-9a-fA-F]{4})")
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_RAISED = re.compile("(?<=\\w)([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f]+)")
_ACCENT = re.compile("[\u0300-\u036f]+")
# Each begins with what is rare and looks back afterwards: that is several times as quick.
_BROKEN = re.compile(r"-(?<=[^\W\d_]-)[ \t]*\r?\n[ \t]*(?=[^\W\d_])")
_GROUPED = re.compile(r"\d(?<!\d\d)\d{0,2}(?:(?: +|[,'])\d{3})+(?!\d)")
_SEPARATOR = re.compile(r"[ ,']+")
_APOSTROPHE = re.compile(r"'(?<=[^\W\d_]')(?=[^\W\d_])")
_CJK = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASCII_WORD = re.compile(r"[a-z0-9]+")
# Copies are not told by these, nor by numbers and single letters. Other languages' commonest words are not
# listed: a text of ten words is hardly made of them alone.
_LIGHT = frozenset(
    """
a about after all also an and any are as at be because been before being best both but by can could did do does
each for from had has have he her his how i if in into is it its itself many may more most much must no not of on
one only or other our out over she should since so some such than that the their them then there these they this
those to two under up us use used using was we were what when where which while who whose why will with would you
your following true false answer answers question questions correct
statement statements
""".split()  # noqa: SIM905 — a list of literals would be sixty lines
)
# The marks that most texts with any have: replaced first, the rest of the way is then quick.
_TYPOGRAPHY = {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2013": " ", "\u2014": " ", "\u00a0": " ",
               "\u2026": " ", "\u2022": " ", "\u00a9": " ", "\u00bb": " ", "\u00ab": " ", "\u202f": " ", "\u2009": " ",
               "\u2192": " ", "\u2010": "-", "\u2011": "-", "\u00b7": " ", "\u00b6": " "}  # fmt: skip


@cache
def _word() -> re.Pattern[str]:
    marks = "".join(char for code in range(0x300, 0x10000) if unicodedata.category(char := chr(code))[0] == "M")
    return re.compile(f"[{_CJK}]|(?:[^\\W_{_CJK}][{marks}]*)+")


def _plain(text: str) -> str:
    """The text without what only sets it: left-over entities and tags, invisible characters, LaTeX commands."""
    if "&" in text and _ENTITY.search(text):
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if "\\u" in text:
        text = _CODED.sub(lambda found: chr(int(found[1], 16)), text)
    if "<" in text:
        text = _BLOCK_TAG.sub(" ", _INLINE_TAG.sub("", text))
    if not text.isascii():
        for mark, simple in _TYPOGRAPHY.items():
            text = text.replace(mark, simple)
    if not text.isascii():
        text = _RAISED.sub(r" \1", _INVISIBLE.sub("", text))
    return text


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", _ACCENT.sub("", text)).replace("\u2019", "'")


def words(text: str) -> list[str]:
    """The words of a text: NFKC, case-folded, without accents and punctuation; ``1,000`` and ``1 000`` are ``1000``.

    Words broken by a hyphen at the end of a line are whole. Han and kana are words of one character
    each. Letters keep the marks that follow them, but for accents. Tags, entities and LaTeX commands go.
    """
    text = _folded(_plain(text))
    if "\\" in text:
        text = _ESCAPE.sub(" ", _COMMAND.sub(" ", text))
    text = _BROKEN.sub("", text)
    text = _GROUPED.sub(lambda found: _SEPARATOR.sub("", found[0]), text)
    text = _APOSTROPHE.sub("", text)
    return _ASCII_WORD.findall(text) if text.isascii() else _word().findall(text)


def is_light(word: str) -> bool:
    """Whether a word says little of where a text comes from: one of the commonest, a number, a single letter."""
    return word in _LIGHT or word.isdecimal() or (len(word) == 1 and word.isascii())
