"""What becomes of one document: kept, cut or dropped, and the row that says why; and the counts of all."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dataeng.decontaminate.cut import cut
from dataeng.decontaminate.search import RULES, Judge, verdict
from dataeng.decontaminate.words import words
from dataeng.document import Document, to_dropped, to_row, with_text

STAGE = "decontaminate"
# Keys of a contaminated document's metadata.
ITEM = "contaminated"  # the surest item, as `matched` of a dropped document has it
KIND = "contaminated_by"  # verbatim, answer or edited
ITEMS = "contaminated_items"  # every item, as a JSON list
CHARACTERS = "contaminated_characters"  # that were cut


def decided(document: Document, judge: Judge) -> dict[str, Any]:
    """The row of a document: kept as it is or without the lines that hold items, or dropped."""
    text = document.text or ""
    matches, share = judge.look(text)
    if not matches:
        scores = document.scores | ({"contaminated": share} if share else {})
        return to_row(replace(document, scores=scores))
    first = matches[0]
    items = json.dumps(sorted({match.item for match in matches}), ensure_ascii=False)
    facts = {ITEM: first.item, KIND: first.kind, ITEMS: items}
    if judge.config.action == "cut":
        rest = cut(text, matches, judge)
        if rest and len(words(rest.text)) >= judge.config.shortest_rest:
            return to_row(with_text(document, rest.text, **facts, **{CHARACTERS: str(rest.characters)}))
    scores = document.scores | {RULES[first.kind]: first.similarity}
    document = replace(document, scores=scores, metadata=document.metadata | facts)
    return to_dropped(document, STAGE, verdict(matches, judge.config), matched=first.item, similarity=first.similarity)


def counted(
    sets: Mapping[str, Mapping[str, int]], found: Iterable[tuple[str, str, str, int]]
) -> dict[str, dict[str, int]]:
    """The facts of each set with the counts of what was found of it.

    ``found`` has (table, kind, items as written, documents). A set's ``found`` are different items; a
    document counts for every set of which it holds an item, by the kind of its surest one.
    """
    items: dict[str, set[str]] = defaultdict(set)
    counts = {name: {"documents": 0, "dropped": 0, "cut": 0, **dict.fromkeys(RULES, 0)} for name in sets}
    for table, kind, written, documents in found:
        names = json.loads(written)
        for name in {item.rpartition("/")[0] for item in names}:
            for key in ("documents", "cut" if table == "kept" else "dropped", kind):
                counts[name][key] += documents
        for item in names:
            items[item.rpartition("/")[0]].add(item)
    return {name: {**facts, "found": len(items[name]), **counts[name]} for name, facts in sets.items()}
