"""A guess at a page's language before its main text is looked for, where the recipe wants few languages.

Navigation, comments and code stand in a page's whole text too: so the page is dropped only where neither its
whole text nor any quarter of it gives the wanted languages more than a small probability (``extract.language_least``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree

from dataeng.filter import language

RULE = "language_guess"
_VISIBLE = etree.XPath(
    "//body//text()[not(parent::script or parent::style or parent::noscript or parent::template or parent::textarea)]"
)
_LEAST_LETTERS = 200  # characters of text under which nothing is guessed
_MOST = 200_000  # characters that are looked at
_QUARTERS = 4


def visible_text(tree: Any) -> str:
    """The text of a page's body without scripts and styles, white space folded, its beginning if it is long."""
    parts, size = [], 0
    for part in _VISIBLE(tree):
        if words := part.split():
            parts.append(" ".join(words))
            size += len(parts[-1]) + 1
            if size > _MOST:
                break
    return " ".join(parts)


def _pieces(text: str) -> Iterator[str]:
    """The text, then its quarters."""
    yield text
    step = -(-len(text) // _QUARTERS)
    yield from (text[start : start + step] for start in range(0, len(text), step))


def wanted_probability(text: str, languages: Sequence[str], model: Any) -> float | None:
    """The highest probability that the text or a quarter of it gives the wanted languages; None of a short text."""
    if sum(map(str.isalpha, text)) < _LEAST_LETTERS:
        return None
    highest = 0.0
    for piece in _pieces(text):
        found = language.probabilities(piece, model)
        highest = max(highest, sum(found.get(code, 0.0) for code in languages))
        if highest >= 0.5:  # more than any bound asks for
            break
    return highest
