"""The quality and repetition rules of Gopher (Rae et al. 2021, appendix A.1).

Definitions where the field differs:

- words: ``filter.words``; lengths count punctuation; a Hangul syllable counts as two letters. The
  mean length does not apply where most of a text is in a script without spaces.
- bullets are ``• ‣ ▪ ● ◦ * -``, an ellipsis is ``...`` or ``…``.
- stop words: how many different ones occur, lower-cased, without punctuation at their ends; only
  for languages that a list is given for.
- duplicate lines and paragraphs: the copies after the first, by count and by characters.
- n-grams: characters of words without white space, above and below the fraction. Top: those that
  the most frequent n-gram covers (it must occur twice; of equals the longest, then the first).
  Duplicate: those covered by occurrences after the first. No character is counted twice.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.filter.repeats import copies, different, n_grams
from dataeng.filter.scan import Scan, scan, stop_hash
from dataeng.filter.stop_words import STOP_WORDS, Code, Word
from dataeng.recipe import Table

_N_GRAMS = [f"gopher.top_{n}_gram" for n in (2, 3, 4)] + [f"gopher.duplicate_{n}_grams" for n in range(5, 11)]


class Config(Table):
    """Table `filter.gopher`; defaults are Gopher's."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    words_min: int = Field(50, ge=0, description="Fewest words")
    words_max: int = Field(100_000, ge=0, description="Most words")
    mean_word_length_min: float = Field(3, ge=0, description="Least mean length of words, characters")
    mean_word_length_max: float = Field(10, ge=0, description="Greatest mean length of words, characters")
    hashes_per_word_max: float = Field(0.1, ge=0, description="Most # signs a word")
    ellipses_per_word_max: float = Field(0.1, ge=0, description="Most ellipses a word")
    bullet_lines_max: float = Field(0.9, ge=0, le=1, description="Greatest share of lines starting with a bullet")
    ellipsis_lines_max: float = Field(0.3, ge=0, le=1, description="Greatest share of lines ending with an ellipsis")
    alphabetic_words_min: float = Field(0.8, ge=0, le=1, description="Least share of words with a letter")
    stop_words_min: int = Field(2, ge=0, description="Fewest different stop words")
    stop_words: dict[Code, list[Word]] = Field(STOP_WORDS, description="Stop words by ISO 639-1 code; others pass")
    duplicate_paragraphs_max: float = Field(0.3, ge=0, le=1, description="Share of paragraphs that repeat one before")
    duplicate_paragraph_characters_max: float = Field(0.2, ge=0, le=1, description="Share of their characters")
    duplicate_lines_max: float = Field(0.3, ge=0, le=1, description="Share of lines that repeat one before")
    duplicate_line_characters_max: float = Field(0.2, ge=0, le=1, description="Share of their characters")
    top_2_gram_max: float = Field(0.20, ge=0, le=1, description="Share of characters in the most frequent 2-gram")
    top_3_gram_max: float = Field(0.18, ge=0, le=1, description="Share of characters in the most frequent 3-gram")
    top_4_gram_max: float = Field(0.16, ge=0, le=1, description="Share of characters in the most frequent 4-gram")
    duplicate_5_grams_max: float = Field(0.15, ge=0, le=1, description="Share of characters in repeated 5-grams")
    duplicate_6_grams_max: float = Field(0.14, ge=0, le=1, description="Share of characters in repeated 6-grams")
    duplicate_7_grams_max: float = Field(0.13, ge=0, le=1, description="Share of characters in repeated 7-grams")
    duplicate_8_grams_max: float = Field(0.12, ge=0, le=1, description="Share of characters in repeated 8-grams")
    duplicate_9_grams_max: float = Field(0.11, ge=0, le=1, description="Share of characters in repeated 9-grams")
    duplicate_10_grams_max: float = Field(0.10, ge=0, le=1, description="Share of characters in repeated 10-grams")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("words", "mean_word_length"):
            least, most = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if least > most:
                raise ValueError(f"{name}_min = {least} is above {name}_max = {most}: nothing would be kept")
        return self

    @cached_property
    def limits(self) -> list[Limit]:
        """The bounds in their published order, which is that of the fields."""
        values = [(name, getattr(self, name)) for name in type(self).model_fields if name != "stop_words"]
        named = [(name.rpartition("_"), value) for name, value in values]
        return [Limit(f"gopher.{name}", "min" if kind == "min" else "max", value) for (name, _, kind), value in named]

    @cached_property
    def stop_hashes(self) -> dict[str, np.ndarray]:
        """The hashes of the stop words of each language."""
        return {
            code: np.unique(np.array([stop_hash(word) for word in listed], np.uint64))
            for code, listed in self.stop_words.items()
        }


def scores(document: Document, config: Config) -> dict[str, float]:
    """Every score of the document, named ``gopher.…`` as the config's bounds are."""
    text = document.text or ""
    seen = scan(text)
    found = _quality(text, seen, document.language, config)
    found |= _repeats("paragraph", seen.paragraphs, seen.paragraph_lengths)
    found |= _repeats("line", seen.lines, seen.line_lengths)
    covered, total = n_grams(seen.words, seen.word_lengths)
    found |= dict(zip(_N_GRAMS, (covered / max(total, 1)).tolist(), strict=True))
    return found


def limits(config: Config) -> list[Limit]:
    """The bounds in their published order."""
    return config.limits


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, config.limits)


def _quality(text: str, seen: Scan, language: str | None, config: Config) -> dict[str, float]:
    n_words, n_lines = max(len(seen.words), 1), max(len(seen.lines), 1)
    found = {
        "gopher.words": float(len(seen.words)),
        "gopher.hashes_per_word": text.count("#") / n_words,
        "gopher.ellipses_per_word": (text.count("...") + text.count("…")) / n_words,
        "gopher.bullet_lines": seen.bulleted / n_lines,
        "gopher.ellipsis_lines": seen.trailing_off / n_lines,
        "gopher.alphabetic_words": seen.with_letter / n_words,
    }
    characters = seen.characters
    if characters and 2 * seen.unspaced <= characters:
        found["gopher.mean_word_length"] = (characters + seen.hangul) / n_words
    listed = config.stop_hashes.get(language or "")
    if listed is not None:
        found["gopher.stop_words"] = float(different(seen.stripped, listed))
    return found


def _repeats(name: str, parts: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
    """The share of parts that repeat one before, and of their characters."""
    count, characters, total = copies(parts, lengths)
    shares = count / max(len(parts), 1), characters / max(total, 1)
    return {f"gopher.duplicate_{name}s": shares[0], f"gopher.duplicate_{name}_characters": shares[1]}
