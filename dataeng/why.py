"""One document's way through all stages: what each made of it, and why one dropped it.

``python -m dataeng.why ROOT URL_OR_ID`` prints the way of every capture of that address.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataeng import runs
from dataeng.cli import UserError, run
from dataeng.runs import Published

COLUMNS = [
    *("id", "url", "source", "date", "language", "language_score", "scores", "metadata", "file", "offset", "length"),
    *("rule", "score", "threshold", "bound", "duplicate_of", "matched", "similarity"),
]
_WIDTH = 100


@dataclass(frozen=True)
class Step:
    """What one stage made of a document: the table in which it left it, and its row there."""

    stage: Published
    table: str
    row: dict[str, Any]


def find_ids(stages: Sequence[Published], wanted: str) -> list[str]:
    """The ids of the documents that have this id or this address, in the order in which they came in."""
    column = "id" if re.fullmatch(r"[0-9a-f]{32}", wanted) else "url"
    names = {stage.name for stage in stages}
    sources = [stage for stage in stages if not names & set(runs.input_names(stage))]
    for group in (sources, stages):  # the later stages are read only where the first do not know it
        rows: list[dict[str, Any]] = []
        for stage in group:
            for table in stage.document_tables():
                rows += runs.rows_where(stage, table, column, [wanted], ["id", "file", "offset"])
        if rows:
            rows.sort(key=lambda row: (row.get("file") or "", row.get("offset") or 0, row["id"]))
            return list(dict.fromkeys(row["id"] for row in rows))
    return []


def ways(stages: Sequence[Published], ids: Sequence[str]) -> dict[str, list[Step]]:
    """The steps of each of these documents, in the order of the stages."""
    found: dict[str, list[Step]] = {identifier: [] for identifier in ids}
    for stage in stages:
        for table in stage.document_tables():
            for row in runs.rows_where(stage, table, "id", ids, COLUMNS):
                found[row["id"]].append(Step(stage, table, row))
    return found


def related(found: dict[str, list[Step]]) -> list[str]:
    """The ids of the documents that these duplicate, or were matched with."""
    rows = [step.row for steps in found.values() for step in steps]
    names = [row[key] for row in rows for key in ("duplicate_of", "matched") if row.get(key)]
    return sorted(set(names) - found.keys())


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.6g}"


def reason(row: dict[str, Any], addresses: dict[str, str] | None = None) -> str:
    """Why a row was dropped, in words: its rule, score, threshold and what it was matched with."""
    parts = [str(row.get("rule") or "no rule recorded")]
    if row.get("score") is not None and row["score"] != row.get("similarity"):
        side = {"min": "below the minimum of", "max": "above the maximum of"}.get(row.get("bound") or "", "against")
        limit = "" if row.get("threshold") is None else f", {side} {_number(row['threshold'])}"
        parts.append(f"scored {_number(row['score'])}{limit}")
    if row.get("duplicate_of"):
        parts.append(f"duplicate of {_named(row['duplicate_of'], addresses)}")
    if row.get("matched") and row["matched"] != row.get("duplicate_of"):
        parts.append(f"matched {_named(row['matched'], addresses)}")
    if row.get("similarity") is not None:
        limit = "" if row.get("threshold") is None else f" (threshold {_number(row['threshold'])})"
        parts.append(f"similarity {row['similarity']:.4f}{limit}")
    return "; ".join(parts)


def _named(identifier: str, addresses: dict[str, str] | None) -> str:
    address = (addresses or {}).get(identifier)
    return f"{identifier} ({address})" if address else identifier


def _facts(row: dict[str, Any], stage: Published, with_scores: bool) -> list[str]:
    """What a stage noted of a document that it passed on."""
    facts = []
    if row.get("language") and stage.manifest.tables:
        facts.append(f"language {row['language']} ({_number(row.get('language_score'))})")
    metadata = row.get("metadata") or {}
    facts += [
        f"{key} {value}" for key, value in metadata.items() if key.startswith(("masked.", "cut.")) and value != "0"
    ]
    scores = (row.get("scores") or {}) if with_scores else {}
    facts += [f"{key} {_number(value)}" for key, value in scores.items()]
    return facts


def _lines(label: str, verdict: str, details: Sequence[str], gap: int) -> list[str]:
    head = f"  {label:<{gap}}  {verdict:<10}  "
    text = textwrap.wrap("; ".join(details), _WIDTH - len(head), break_long_words=False, break_on_hyphens=False)
    return [(head + (text[0] if text else "")).rstrip(), *(" " * len(head) + line for line in text[1:])]


def _new(details: list[str], seen: set[str]) -> list[str]:
    fresh = [detail for detail in details if detail not in seen]
    seen.update(details)
    return fresh


def describe(
    identifier: str,
    steps: Sequence[Step],
    stages: Sequence[Published],
    names: dict[str, str],
    with_scores: bool = True,
) -> list[str]:
    """The lines that tell one document's way. ``names`` holds the addresses of ids that it is compared with."""
    first = steps[0].row
    place = f"{first['file']} at byte {first.get('offset') or 0:,}" if first.get("file") else ""
    origin = [f"id {identifier}", f"source {first['source']}" if first.get("source") else "", first.get("date") or ""]
    origin += [place, f"{first['length']:,} bytes" if first.get("length") else ""]
    lines = [first.get("url") or identifier, "  " + " · ".join(part for part in origin if part), ""]
    gap = max(len(stage.name) for stage in stages)
    seen: set[str] = set()
    for step in steps:
        dropped = step.table == "dropped"
        details = [reason(step.row, names)] if dropped else _new(_facts(step.row, step.stage, with_scores), seen)
        lines += _lines(step.stage.name, step.table.upper() if dropped else step.table, details, gap)
    last = steps[-1]
    following = [s for s in stages if last.stage.name in runs.input_names(s) and s.document_tables()]
    if last.table == "kept" and following:
        waits = f"not among its rows: it ran before this document came; run `{following[0].name}` again"
        lines += _lines(following[0].name, "unseen", [waits], gap)
    return lines


def why(root: str, wanted: str) -> str:
    """The ways of all documents of an id or address, as text; raises UserError where there are none."""
    stages = [stage for stage in runs.published(root) if stage.document_tables()]
    if not stages:
        raise UserError(f"{root}: no stage with documents has been published there")
    ids = find_ids(stages, wanted)
    if not ids:
        raise UserError(f"{wanted}: no stage of {root} has a document with this id or address")
    found = ways(stages, ids)
    others = ways(stages, related(found))
    names = {key: steps[0].row.get("url") or "" for key, steps in {**found, **others}.items() if steps}
    lines = [f"{len(ids)} documents of this address", ""] if len(ids) > 1 else []
    for identifier in ids:
        lines += [*describe(identifier, found[identifier], stages, names), ""]
    if any(others.values()):
        lines += ["For comparison", ""]
    for identifier, steps in others.items():
        if steps:
            lines += [*describe(identifier, steps, stages, names, with_scores=False), ""]
    return "\n".join(_printable(line) for line in lines).rstrip()


def _printable(line: str) -> str:
    """A line without control characters: addresses come from strangers and go to a terminal."""
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def _main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise UserError("usage: python -m dataeng.why ROOT URL_OR_ID")
    print(why(arguments[0], arguments[1]))


if __name__ == "__main__":
    run(_main)
