"""What becomes of one document: kept, cut or dropped, and the row that says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dataeng.decontaminate.cut import cut
from dataeng.decontaminate.search import RULES, Judge, verdict
from dataeng.decontaminate.words import words
from dataeng.document import Document, to_dropped, to_row, with_text

STAGE = "decontaminate"


def decided(document: Document, judge: Judge) -> dict[str, Any]:
    """The row of a document: kept as it is or without the lines that hold items, or dropped."""
    text = document.text or ""
    matches, share = judge.look(text)
    if not matches:
        scores = document.scores | ({"contaminated": share} if share else {})
        return to_row(replace(document, scores=scores))
    first = matches[0]
    if judge.config.action == "cut":
        rest = cut(text, matches, judge)
        if rest and len(words(rest.text)) >= judge.config.shortest_rest:
            facts = {"contaminated": first.item, "contaminated_characters": str(rest.characters)}
            return to_row(with_text(document, rest.text, **facts, contaminated_by=first.kind))
    document = replace(document, scores=document.scores | {RULES[first.kind]: first.similarity})
    return to_dropped(document, STAGE, verdict(matches, judge.config), matched=first.item, similarity=first.similarity)
