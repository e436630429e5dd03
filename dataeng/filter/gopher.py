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

import string
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.filter.stop_words import STOP_WORDS
from dataeng.filter.words import hangul_count, lines_of, numbered, paragraphs_of, unspaced_count
from dataeng.recipe import Table

_BULLETS = ("•", "‣", "▪", "●", "◦", "*", "-")
_ELLIPSES = ("...", "…")
_PUNCTUATION = string.punctuation + "«»„“”‘’…¿¡。、！？"
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing modulo 2^64


class Config(Table):
    """Table `filter.gopher`; defaults are Gopher's."""

    version: ClassVar[int] = 1
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
    stop_words: dict[str, list[str]] = Field(STOP_WORDS, description="Stop words by ISO 639-1 code; others pass")
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


def scores(document: Document, config: Config) -> dict[str, float]:
    """Every score of the document, named ``gopher.…`` as the config's bounds are."""
    text = document.text or ""
    found = _quality(text, document.language, config)
    found |= _repeats("paragraph", paragraphs_of(text)) | _repeats("line", lines_of(text)) | _n_grams(text)
    return {f"gopher.{name}": float(value) for name, value in found.items()}


def limits(config: Config) -> list[Limit]:
    """The bounds in their published order, which is that of the config's fields."""
    named = [(name.rpartition("_"), value) for name, value in config if not isinstance(value, dict)]
    return [Limit(f"gopher.{name}", "min" if kind == "min" else "max", value) for (name, _, kind), value in named]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, limits(config))


def _quality(text: str, language: str | None, config: Config) -> dict[str, float]:
    words, lines = numbered(text), lines_of(text)
    n_words, n_lines = max(len(words.ids), 1), max(len(lines), 1)
    with_letter = np.fromiter(map(_has_letter, words.different), bool, len(words.different))
    found = {
        "words": float(len(words.ids)),
        "hashes_per_word": text.count("#") / n_words,
        "ellipses_per_word": sum(map(text.count, _ELLIPSES)) / n_words,
        "bullet_lines": sum(line.startswith(_BULLETS) for line in lines) / n_lines,
        "ellipsis_lines": sum(line.endswith(_ELLIPSES) for line in lines) / n_lines,
        "alphabetic_words": int(with_letter[words.ids].sum()) / n_words,
    }
    characters = int(words.lengths.sum())
    if characters and 2 * unspaced_count(text) <= characters:
        found["mean_word_length"] = (characters + hangul_count(text)) / n_words
    listed = config.stop_words.get(language or "")
    if listed is not None:
        found["stop_words"] = len({word.lower().strip(_PUNCTUATION) for word in words.different} & set(listed))
    return found


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def _repeats(name: str, parts: Sequence[str]) -> dict[str, float]:
    """The share of parts that repeat one before, and of their characters."""
    total, seen, copies, characters = sum(map(len, parts)), set[str](), 0, 0
    for part in parts:
        if part in seen:
            copies, characters = copies + 1, characters + len(part)
        seen.add(part)
    shares = copies / max(len(parts), 1), characters / max(total, 1)
    return {f"duplicate_{name}s": shares[0], f"duplicate_{name}_characters": shares[1]}


def _n_grams(text: str) -> dict[str, float]:
    """The shares of characters in the top 2- to 4-grams and in duplicate 5- to 10-grams.

    An n-gram can only occur twice where its first n − 1 words do: each round looks at the starts
    that the last one left. Hashes are 64-bit polynomials of the words' numbers.
    """
    words = numbered(text)
    ids, lengths = words.ids.astype(np.uint64) + np.uint64(1), words.lengths
    names = [f"top_{n}_gram" for n in (2, 3, 4)] + [f"duplicate_{n}_grams" for n in range(5, 11)]
    found = dict.fromkeys(names, 0.0)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    starts, hashes = np.arange(len(ids)), ids.copy()
    for n, name in enumerate(names, 2):
        inside = starts + n <= len(ids)
        starts, hashes = starts[inside], hashes[inside]
        hashes = hashes * _FACTOR + ids[starts + (n - 1)]
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        new = np.ones(len(ordered), bool)
        new[1:] = ordered[1:] != ordered[:-1]
        groups = np.flatnonzero(new)
        counts = np.diff(np.append(groups, len(ordered)))
        if not (counts > 1).any():
            break
        characters = ends[starts + n] - ends[starts]
        covering = _top(order, groups, counts, characters) if n <= 4 else order[~new]
        found[name] = _covered(starts[covering], n, lengths) / max(int(ends[-1]), 1)
        repeated = np.sort(order[np.repeat(counts > 1, counts)])
        starts, hashes = starts[repeated], hashes[repeated]
    return found


def _top(order: np.ndarray, groups: np.ndarray, counts: np.ndarray, characters: np.ndarray) -> np.ndarray:
    """Where the most frequent n-gram stands: of equals the longest, then the first in the text."""
    most = np.flatnonzero(counts == counts.max())
    firsts = order[groups[most]]
    best = most[np.lexsort((firsts, -characters[firsts]))[0]]
    return order[groups[best] : groups[best] + counts[best]]


def _covered(starts: np.ndarray, n: int, lengths: np.ndarray) -> int:
    """The characters of the words covered by n-grams at these starts, none counted twice."""
    size = len(lengths) + 1
    edges = np.bincount(starts, minlength=size) - np.bincount(starts + n, minlength=size)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())
