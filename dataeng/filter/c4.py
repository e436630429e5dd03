"""The rules of C4 (Raffel et al. 2020): lines that are no prose go, then documents with little left.

A line goes if it does not end in ``. ? ! " '`` or what does their work in another script (or ends
in an ellipsis), has fewer than 3 words, a word of more than 1,000 characters, the word
"javascript", or a phrase of cookie and terms notices in the document's language. A document goes
with "lorem ipsum" or a curly bracket in a line that stayed, or with fewer than 5 sentences. A
sentence is a stretch with a letter up to its end mark followed by white space, or the line's end.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.filter.fineweb import TERMINAL
from dataeng.filter.words import words_of
from dataeng.recipe import Table

_ENDS = (*TERMINAL, '"', "'", "”", "’", "»", "」", "』")
_ELLIPSES = ("...", "…")
_SENTENCE_END = re.compile(r"[.?!…]+[\"'”’»)\]]*\s+|[。！？｡]+[」』）”’]*|[।॥؟۔]+\s*")
_NOTICES = {
    "en": ["terms of use", "terms and conditions", "privacy policy", "cookie policy", "use of cookies", "uses cookies",
           "use cookies"],
    "de": ["verwenden cookies", "verwendet cookies", "datenschutzerklärung", "nutzungsbedingungen"],
    "es": ["utiliza cookies", "uso de cookies", "política de privacidad", "política de cookies"],
    "fr": ["utilise des cookies", "utilisation de cookies", "politique de confidentialité", "conditions d'utilisation"],
    "it": ["utilizza i cookie", "uso dei cookie", "informativa sulla privacy"],
    "nl": ["maakt gebruik van cookies", "privacybeleid", "cookiebeleid"],
    "pt": ["utiliza cookies", "uso de cookies", "política de privacidade"],
}  # fmt: skip


class Config(Table):
    """Table `filter.c4`; defaults are C4's."""

    version: ClassVar[int] = 1

    terminal_punctuation: bool = Field(True, description="Lines must end in punctuation (FineWeb: false)")
    line_words_min: int = Field(3, ge=0, description="Fewest words of a line")
    word_length_max: int = Field(1000, ge=1, description="A line with a longer word goes, characters")
    notices: dict[str, list[str]] = Field(_NOTICES, description="Lower-case phrases, by ISO 639-1 code, whose lines go")
    javascript: bool = Field(True, description='Lines with "javascript" go')
    lorem_ipsum_max: int = Field(0, ge=0, description='Most occurrences of "lorem ipsum"')
    curly_brackets_max: int | None = Field(0, ge=0, description="Most opening curly brackets; absent: any")
    sentences_min: int = Field(5, ge=0, description="Fewest sentences")


def transform(document: Document, config: Config) -> Document:
    """The document without the lines that go; scores ``c4.lines_…`` count them by reason."""
    phrases, kept, gone = config.notices.get(document.language or "", []), [], Counter[str]()
    for line in (document.text or "").split("\n"):
        reason = _reason(line.strip(), phrases, config)
        if reason is None:
            kept.append(line)
        elif line.strip():
            gone[f"c4.lines_{reason}"] += 1
    counts = {name: float(number) for name, number in gone.items()}
    return replace(document, text="\n".join(kept), scores=document.scores | counts)


def _reason(line: str, phrases: list[str], config: Config) -> str | None:
    if config.terminal_punctuation and (not line.endswith(_ENDS) or line.endswith(_ELLIPSES)):
        return "without_end"
    words = words_of(line)
    if len(words) < config.line_words_min:
        return "short"
    if max(map(len, words), default=0) > config.word_length_max:
        return "long_word"
    lowered = line.lower()
    if config.javascript and "javascript" in lowered:
        return "javascript"
    return "notice" if any(phrase in lowered for phrase in phrases) else None


def scores(document: Document, config: Config) -> dict[str, float]:
    """Scores of the lines that stayed: ``c4.lorem_ipsum``, ``c4.curly_brackets``, ``c4.sentences``."""
    text = document.text or ""
    return {
        "c4.lorem_ipsum": float(text.lower().count("lorem ipsum")),
        "c4.curly_brackets": float(text.count("{")),
        "c4.sentences": float(sum(map(_sentences, text.split("\n")))),
    }


def _sentences(line: str) -> int:
    return sum(any(map(str.isalpha, part)) for part in _SENTENCE_END.split(line))


def limits(config: Config) -> list[Limit]:
    """The bounds in their published order."""
    brackets = config.curly_brackets_max
    return [
        Limit("c4.lorem_ipsum", "max", config.lorem_ipsum_max),
        *([] if brackets is None else [Limit("c4.curly_brackets", "max", brackets)]),
        Limit("c4.sentences", "min", config.sentences_min),
    ]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, limits(config))
