"""What steps that read raw files share: which files, one name each, and ids that occur once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa

from dataeng import storage
from dataeng.cli import UserError
from dataeng.document import Document, Verdict, digest, from_row, to_batch, to_dropped, to_row

Row = dict[str, Any]
Named = tuple[str, storage.Entry]  # the name that rows carry as `file`, and the file


def entries(step: str, named: Iterable[Named]) -> list[dict[str, Any]]:
    """The files as the stages' glue wants them, each once, sorted by name: path, file, size, tag.

    Raises UserError where two files would bear one name, or where all are empty.
    """
    found = {entry.path: (file, entry) for file, entry in reversed(list(named))}
    files: list[dict[str, Any]] = [
        {"path": entry.path, "file": file, "size": entry.size, "tag": entry.tag}
        for file, entry in sorted(found.values(), key=lambda item: (item[0], item[1].path))
    ]
    for one, other in pairwise(files):
        if one["file"] == other["file"]:
            both = f"{one['path']} and {other['path']}"
            raise UserError(f"{step}.input: {both} would both be called {one['file']}: name a folder that holds both")
    if not any(item["size"] for item in files):
        raise UserError(f"{step}.input: {', '.join(str(item['path']) for item in files[:3])}: nothing but empty files")
    return files


def counts_row(
    name: str, source: str, captures: int, damaged: int, skipped: int, more: dict[str, float] | None = None
) -> Row:
    """The row of table ``captures`` that says what was read of one file: an independent count of what came in.

    ``more`` are further numbers, which the stage's manifest adds up over files in its details.
    """
    counts = {"captures": str(captures), "damaged": str(damaged), "skipped": str(skipped)}
    counts |= {key: str(value) for key, value in (more or {}).items()}
    return to_row(Document(digest("captures", name), None, source=source, metadata=counts, file=name), "captures")


def mark_duplicates(batches: Iterable[pa.RecordBatch], step: str) -> Iterator[pa.RecordBatch]:
    """Rows sorted by id, file and offset: of equal ids all but the first become rows dropped as ``duplicate_id``."""
    last = None
    for batch in batches:
        ids = batch.column("id").to_pylist()
        if len({last, *ids}) == len(ids) + 1:
            yield batch
        else:
            rows = []
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                again = to_dropped(from_row(row), step, Verdict(False, "duplicate_id"))
                rows.append(again if row["id"] == last else row)
                last = row["id"]
            yield to_batch(rows, batch.schema)
        last = ids[-1] if ids else last
