"""Cutting what a document holds of evaluation items: the lines that have a word of it.

Beside the copy itself, its reference answer is cut where it stands within the words that follow, as far
as the set names answers. The rest is looked at again, until it holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dataeng.decontaminate.index import GAP
from dataeng.decontaminate.search import Judge, Match
from dataeng.decontaminate.words import words

ROUNDS = 10
_HYPHEN = re.compile(r"[-\u00ad\u2010]\s*$")


class Rest(NamedTuple):
    """What is left of a text, and how many characters were cut."""

    text: str
    characters: int


def cut(text: str, matches: Sequence[Match], judge: Judge) -> Rest | None:
    """The text without the lines of its matches, or None where they cannot be told from the rest."""
    left = text
    for _ in range(ROUNDS):
        lines = _lines(left)
        counts = [len(words(line)) for line in lines]
        own = words(left)
        if sum(counts) != len(own):  # a tag or a number stands across lines
            return None
        spans = [span for match in matches for span in _with_answers(match, own, judge)]
        kept, at = [], 0
        for line, count in zip(lines, counts, strict=True):
            if not any(start < at + count and at < end for start, end in spans):
                kept.append(line)
            at += count
        left = "".join(kept)
        matches, _ = judge.look(left)
        if not matches:
            return Rest(left.strip("\n"), len(text) - len(left.strip("\n")))
    return None


def _lines(text: str) -> list[str]:
    """The lines of a text with their ends; those that end in a hyphen go together with the next."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if lines and _HYPHEN.search(lines[-1]):
            lines[-1] += line
        else:
            lines.append(line)
    return lines


def _with_answers(match: Match, own: Sequence[str], judge: Judge) -> list[tuple[int, int]]:
    """The spans of a match, each up to the end of the item's answer where one follows soon."""
    spans = []
    for start, end in match.spans:
        furthest = end
        for answer in judge.answers_of(match.item):
            head = answer[: judge.config.shortest]
            after = own[end : end + GAP + len(head)]
            for place in range(len(after) - len(head) + 1):
                if after[place : place + len(head)] == head:
                    furthest = max(furthest, end + place + len(answer))
                    break
        spans.append((start, furthest))
    return spans
