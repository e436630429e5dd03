"""Captures of equal contents: found before any is extracted, one of them extracted, its result given to the others.

No engine needed: ``look`` reads digests, ``fill`` makes whole rows of those that waited for another's result.
Between the two stands a grouping by key, which ``spark_jobs/equal_captures.py`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from dataeng import warc
from dataeng.cli import Conflict
from dataeng.document import ROW, Verdict, from_row, to_batch, to_dropped, to_row
from dataeng.extract import Config
from dataeng.extract.captures import OWN, id_of, key_of
from dataeng.sources import Row
from dataeng.warc import Capture, Damage

# A capture or damaged region as the grouping sees it; ``key`` is null where nothing can be shared.
PLACED = pa.schema([("id", pa.string()), ("key", pa.string()), ("offset", pa.int64()), ("index", pa.int64())])
# A row with its part: ``leads`` is null for captures whose contents are no other's; rows of a ``route`` meet.
PARTED = pa.schema([*ROW, ("route", pa.string()), ("leads", pa.bool_())])
_PIECE = 16 << 20  # characters of text that are handed over at once


def look(path: str, name: str, config: Config) -> Iterator[Row]:
    """The PLACED rows of one capture file: all that ``extract_file`` will give a row of its own."""
    for item in warc.read(path, name, config.record_bytes):
        if isinstance(item, Capture | Damage):
            key = key_of(item, config) if isinstance(item, Capture) else None
            yield {"id": id_of(item), "key": key, "offset": item.offset, "index": item.index}


def fill(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """ROW batches of PARTED ones, in which each route's leader stands before the rows that wait for it.

    Raises Conflict where a leader is missing: its file was replaced between the two readings.
    """
    leader: Row = {"route": None}
    for batch in batches:
        if batch.column("leads").null_count == batch.num_rows:
            yield batch.select(ROW.names)
            continue
        rows: list[Row] = []
        size = 0
        for row in batch.to_pylist(maps_as_pydicts="strict"):
            if row["leads"]:
                leader = row
            elif row["leads"] is not None:
                row = _filled(row, leader)
            rows.append(row)
            size += len(row["text"] or "")
            if size > _PIECE:
                yield to_batch(rows)
                rows, size = [], 0
        if rows:
            yield to_batch(rows)


def _filled(row: Row, leader: dict[str, Any]) -> Row:
    """The row that extraction alone would have given: the leader's text and verdict, its own provenance."""
    if leader["route"] != row["route"]:
        raise Conflict(f"extract: {row['file']} or a file of equal captures was replaced meanwhile: run it again")
    document = from_row(row)
    shared = {key: value for key, value in leader["metadata"].items() if key not in OWN}
    document.text, document.metadata = leader["text"], shared | document.metadata
    if leader["table"] == "kept":
        return to_row(document)
    why = (leader[name] for name in ("rule", "score", "threshold", "bound"))
    return to_dropped(document, "extract", Verdict(False, *why))
