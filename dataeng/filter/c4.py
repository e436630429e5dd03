"""The rules of C4 (Raffel et al. 2020): lines that are no prose go, then documents with little left.

A line goes if it does not end in ``. ? ! " '`` or what does their work in another script (or ends
in an ellipsis), has fewer than 3 words, a word of more than 1,000 characters, the word
"javascript", or a phrase of cookie and terms notices in the document's language. A document goes
with "lorem ipsum" or a curly bracket in a line that stayed, or with fewer than 5 sentences. A
sentence is a stretch with a letter up to its end mark followed by white space, or the line's end.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from itertools import compress
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, StringConstraints

from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.filter.scan import C4_END, TRAILING_OFF, Scan, scan
from dataeng.filter.stop_words import Code
from dataeng.recipe import Table

Phrase = Annotated[str, StringConstraints(min_length=1, to_lower=True)]

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
    notices: dict[Code, list[Phrase]] = Field(
        _NOTICES, description="Phrases in lower case, by ISO 639-1 code, whose lines go"
    )
    javascript: bool = Field(True, description='Lines with "javascript" go')
    lorem_ipsum_max: int = Field(0, ge=0, description='Most occurrences of "lorem ipsum"')
    curly_brackets_max: int | None = Field(0, ge=0, description="Most opening curly brackets; absent: any")
    sentences_min: int = Field(5, ge=0, description="Fewest sentences")

    @cached_property
    def limits(self) -> list[Limit]:
        """The bounds in their published order."""
        brackets = self.curly_brackets_max
        return [
            Limit("c4.lorem_ipsum", "max", self.lorem_ipsum_max),
            *([] if brackets is None else [Limit("c4.curly_brackets", "max", brackets)]),
            Limit("c4.sentences", "min", self.sentences_min),
        ]


def transform(document: Document, config: Config) -> Document:
    """The document without the lines that go; scores ``c4.lines_…`` count them by reason."""
    text = document.text or ""
    raw, seen = text.split("\n"), scan(text)
    reasons = _by_form(seen, config) | _by_phrase(
        raw, seen, text, config.notices.get(document.language or "", []), config
    )
    stay, counts = np.ones(len(seen.lines), bool), {}
    for reason, goes in reasons.items():  # the first reason counts
        number = int(np.count_nonzero(goes & stay))
        stay &= ~goes
        if number:
            counts[f"c4.lines_{reason}"] = float(number)
    kept = np.full(len(raw), not config.terminal_punctuation and config.line_words_min == 0)  # blank lines
    kept[seen.line_numbers] = stay
    left = text if kept.all() else "\n".join(compress(raw, kept.tolist()))
    return replace(document, text=left, scores=document.scores | counts)


def _by_form(seen: Scan, config: Config) -> dict[str, np.ndarray]:
    """The lines that go by their words and ends, by reason."""
    bounds_of_lines = np.append(np.searchsorted(seen.word_starts, seen.line_starts), len(seen.words))
    reasons = {}
    if config.terminal_punctuation:
        reasons["without_end"] = (seen.line_flags & (C4_END | TRAILING_OFF)) != C4_END
    reasons["short"] = np.diff(bounds_of_lines) < config.line_words_min
    if seen.word_lengths.size and seen.word_lengths.max() > config.word_length_max:
        reasons["long_word"] = np.maximum.reduceat(seen.word_lengths, bounds_of_lines[:-1]) > config.word_length_max
    return reasons


def _by_phrase(raw: list[str], seen: Scan, text: str, notices: list[str], config: Config) -> dict[str, np.ndarray]:
    """The lines that go by what they say, by reason."""
    lowered, reasons = text.lower(), {}
    for reason, phrases in (("javascript", ["javascript"] if config.javascript else []), ("notice", notices)):
        said = [phrase for phrase in phrases if phrase in lowered]
        if said:
            lines = (raw[number].lower() for number in seen.line_numbers.tolist())
            reasons[reason] = np.fromiter((any(p in line for p in said) for line in lines), bool, len(seen.lines))
    return reasons


def scores(document: Document, config: Config) -> dict[str, float]:
    """Scores of the lines that stayed: ``c4.lorem_ipsum``, ``c4.curly_brackets``, ``c4.sentences``."""
    text = document.text or ""
    return {
        "c4.lorem_ipsum": float(text.lower().count("lorem ipsum")),
        "c4.curly_brackets": float(text.count("{")),
        "c4.sentences": float(scan(text).line_sentences.sum()),
    }


def limits(config: Config) -> list[Limit]:
    """The bounds in their published order."""
    return config.limits


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, config.limits)
