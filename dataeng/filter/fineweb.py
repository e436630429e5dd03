"""FineWeb's own rules (Penedo et al. 2024): pages of menus, lists and repeated lines.

Lines are those that are not blank. A line ends in punctuation if its last character, closing
quotes and brackets aside, ends a sentence in any of the scripts listed. Widths count Han, kana
and Hangul double. Characters of duplicate lines: copies after the first, over those of all lines.
Newlines are those of the text as it stands, blank lines too.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.filter.repeats import copies
from dataeng.filter.scan import scan
from dataeng.recipe import Table


class Config(Table):
    """Table `filter.fineweb`; defaults are FineWeb's."""

    version: ClassVar[int] = 1

    line_punctuation_min: float = Field(0.12, ge=0, le=1, description="Least share of lines ending in punctuation")
    short_lines_max: float = Field(0.67, ge=0, le=1, description="Greatest share of short lines")
    short_line_columns: int = Field(30, ge=1, description="A line up to this wide is short, characters")
    duplicate_line_characters_max: float = Field(0.01, ge=0, le=1, description="Share of characters in repeated lines")
    newlines_per_word_max: float = Field(0.3, ge=0, description="Most newlines a word")


def scores(document: Document, config: Config) -> dict[str, float]:
    """Every score of the document, named ``fineweb.…``."""
    text = document.text or ""
    seen = scan(text)
    n_lines = max(len(seen.lines), 1)
    _, copied, total = copies(seen.lines, seen.line_lengths)
    return {
        "fineweb.line_punctuation": seen.ended / n_lines,
        "fineweb.short_lines": int(np.count_nonzero(seen.line_columns <= config.short_line_columns)) / n_lines,
        "fineweb.duplicate_line_characters": copied / max(total, 1),
        "fineweb.newlines_per_word": text.count("\n") / max(len(seen.words), 1),
    }


def limits(config: Config) -> list[Limit]:
    """The bounds in their published order."""
    return [
        Limit("fineweb.line_punctuation", "min", config.line_punctuation_min),
        Limit("fineweb.short_lines", "max", config.short_lines_max),
        Limit("fineweb.duplicate_line_characters", "max", config.duplicate_line_characters_max),
        Limit("fineweb.newlines_per_word", "max", config.newlines_per_word_max),
    ]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, limits(config))
