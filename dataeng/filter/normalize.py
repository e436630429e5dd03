"""Normalises text for tasks that want it: every switch is off by default. A transform: it never drops.

In this order, line by line, so that lines and paragraphs stay: lower case, numbers, punctuation,
stop words, stems. Stop words and stems are of the document's language; a language without a list
or a stemmer is left as it is. The result is for counting and matching, not for reading.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from typing import ClassVar, Literal

import snowballstemmer
from pydantic import Field

from dataeng.document import Document
from dataeng.filter.stop_words import STOP_WORDS, Code, Word
from dataeng.recipe import Table

# Snowball's algorithms by ISO 639-1 code.
STEMMERS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "eo": "esperanto", "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish",
    "fr": "french", "ga": "irish", "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "it": "italian", "lt": "lithuanian", "nb": "norwegian", "ne": "nepali", "nl": "dutch", "nn": "norwegian",
    "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sr": "serbian",
    "st": "sesotho", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
_NUMBER = re.compile(r"\d+(?:[.,:\u066b\u066c]\d+)*")
_TOKEN = re.compile(r"\w(?:[\w\u0300-\u036f]|['’](?=\w))*")
_SPACES = re.compile(r"[^\S\n]+")


class Config(Table):
    """Table `filter.normalize`."""

    libraries: ClassVar[tuple[str, ...]] = ("snowballstemmer",)

    lower_case: bool = Field(False, description="Lower case")
    numbers: Literal["keep", "zero", "remove"] = Field("keep", description="Each number becomes 0, or goes")
    punctuation: bool = Field(False, description="Punctuation and signs become spaces; apostrophes in words stay")
    stop_words: bool = Field(False, description="Stop words of the document's language go")
    stem: bool = Field(False, description="Words become their Snowball stems, in lower case")
    stop_word_lists: dict[Code, list[Word]] = Field(STOP_WORDS, description="Stop words by ISO 639-1 code")

    @cached_property
    def stopped(self) -> dict[str, frozenset[str]]:
        """The stop words of each language, in lower case."""
        return {code: frozenset(map(str.lower, listed)) for code, listed in self.stop_word_lists.items()}


@cache
def _stemmer(language: str) -> Callable[[str], str] | None:
    """The stemmer of a language, remembering the words it met last: few words make most of a text."""
    name = STEMMERS.get(language)
    return None if name is None else lru_cache(1 << 16)(snowballstemmer.stemmer(name).stemWord)


def transform(document: Document, config: Config) -> Document:
    """The document normalised; the score ``normalize.stop_words`` counts those that went, where they are asked for."""
    text = document.text
    if not text:
        return document
    language = document.language or ""
    if config.lower_case:
        text = text.lower()
    if config.numbers != "keep":
        text = _NUMBER.sub("0" if config.numbers == "zero" else " ", text)
    if config.punctuation:
        text = _without_signs(text)
    stopped = config.stopped.get(language, frozenset()) if config.stop_words else frozenset()
    stem, gone = _stemmer(language) if config.stem else None, 0

    def put(match: re.Match[str]) -> str:
        nonlocal gone
        lowered = match[0].lower()
        if lowered in stopped:
            gone += 1
            return ""
        return match[0] if stem is None else stem(lowered)

    if stopped or stem:
        text = _TOKEN.sub(put, text)
    if config.numbers == "remove" or config.punctuation or stopped:
        text = "\n".join(line.strip() for line in _SPACES.sub(" ", text).split("\n"))
    counts = {"normalize.stop_words": float(gone)} if config.stop_words else {}
    return replace(document, text=text, scores=document.scores | counts)


def _without_signs(text: str) -> str:
    """The text with a space for each sign, but for apostrophes inside words."""
    table = {ord(sign): " " for sign in set(text) if sign not in "'’" and unicodedata.category(sign)[0] in "PS"}
    return re.sub(r"(?<!\w)['’]|['’](?!\w)", " ", text.translate(table))
