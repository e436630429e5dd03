"""Slices of a stage that works per document: input files cut, and what the slices published added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dataeng.manifest import Manifest, TableEntry
from dataeng.stage import Attempt, add_hashes


def merge(attempt: Attempt, slices: Sequence[Manifest]) -> Manifest:
    """The stage's manifest from its slices': files listed, counts and hashes added up."""
    tables: dict[str, TableEntry] = {}
    counts, rules, limits = Counter[str](), Counter[str](), 0
    for part in slices:
        counts.update(part.counts)
        rules.update(part.dropped_by)
        limits += part.nondeterministic
        for name, entry in part.tables.items():
            old = tables.get(name, TableEntry())
            tables[name] = TableEntry(
                rows=old.rows + entry.rows, hash=add_hashes([old.hash, entry.hash]), files=[*old.files, *entry.files]
            )
    order = sorted(rules.items(), key=lambda item: (-item[1], item[0]))
    details = {"slices": len(slices)} | _add_details([part.details for part in slices])
    versions = slices[0].versions if slices else {}
    return attempt.manifest(
        tables=tables,
        counts=dict(counts),
        dropped_by=dict(order),
        nondeterministic=limits,
        details=details,
        versions=versions,
    )


def _add_details(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of the slices' details added up, in tables too; other values are taken from the first that has them."""
    total: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            old = total.get(key)
            if isinstance(value, int | float) and isinstance(old, int | float | None):
                total[key] = (old or 0) + value
            elif isinstance(value, dict) and isinstance(old, dict | None):
                total[key] = _add_details([old or {}, value])
            else:
                total.setdefault(key, value)
    return total


def cut_slices(files: Sequence[dict[str, Any]], slice_bytes: int) -> list[list[dict[str, Any]]]:
    """Sorted input files (with ``path`` and ``size``) cut where a slice reaches ``slice_bytes``."""
    slices: list[list[dict[str, Any]]] = []
    filled = slice_bytes
    for file in sorted(files, key=lambda f: str(f["path"])):
        if filled >= slice_bytes:
            slices.append([])
            filled = 0
        slices[-1].append(file)
        filled += int(file["size"])
    return slices
