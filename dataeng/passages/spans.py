"""From occurrences with their first ones to the spans of each document that are to go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dataeng.document import row_hash
from dataeng.passages import Config, lines, substrings
from dataeng.passages.units import LINE, SITE, WINDOW

# What comes in: occurrences by id, kind and place, each with the first one of its key and how many hold that.
REPEATS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.int8()),
        ("place", pa.int64()),
        ("end", pa.int64()),
        ("words", pa.int64()),
        ("holders", pa.int64()),
        ("first_id", pa.string()),
        ("first_place", pa.int64()),
    ]
)
# Table `spans`: characters ``start`` to ``end`` of a document's text as it entered, which repeat those
# from ``first_start`` on of document ``first_id``. Spans of one document may overlap.
SPANS = pa.schema(
    [
        ("id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("rule", pa.string()),
        ("first_id", pa.string()),
        ("first_start", pa.int64()),
        ("row_hash", pa.string()),
        ("table", pa.string()),
    ]
)
_CHARACTER = (1 << 32) - 1
_ROWS = 1 << 14


def spans(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """The rows of table `spans`, hashed; holds one batch and one document's repeats in memory."""
    rows: list[dict[str, Any]] = []
    for document in _documents(batches):
        rows += of_document(document, config)
        if len(rows) >= _ROWS:
            yield pa.RecordBatch.from_pylist(rows, schema=SPANS)
            rows = []
    yield pa.RecordBatch.from_pylist(rows, schema=SPANS)


def _documents(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows of each document, which stand together, as a table."""
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        ids = batch.column("id").to_pylist()
        start = 0
        for end in range(1, len(ids) + 1):
            if end < len(ids) and ids[end] == ids[start]:
                continue
            if rest and rest[0].column("id")[0].as_py() != ids[start]:
                yield pa.Table.from_batches(rest)
                rest = []
            rest.append(batch.slice(start, end - start))
            start = end
    if rest:
        yield pa.Table.from_batches(rest)


def of_document(repeats: pa.Table, config: Config) -> list[dict[str, Any]]:
    """The spans of one document (rows of REPEATS with its id)."""
    identifier = repeats["id"][0].as_py()
    kind = repeats["kind"].to_numpy()
    columns = {name: repeats[name].to_numpy() for name in ("place", "end", "words", "holders", "first_place")}
    columns["first_id"] = np.array(repeats["first_id"].to_pylist(), object)
    parts = {name: {key: value[kind == name] for key, value in columns.items()} for name in (SITE, LINE, WINDOW)}
    own = {name: part["first_id"] == identifier for name, part in parts.items()}
    found = _lines(parts, own[LINE], config) if "lines" in config.rules else []
    if "substrings" in config.rules:
        found += _windows(parts[WINDOW], own[WINDOW], config.rule("substrings"))
    rows = []
    for start, end, rule, first_id, first_place in sorted(found):
        row = {"id": identifier, "start": start, "end": end, "rule": rule, "first_id": first_id}
        row["first_start"] = first_place & _CHARACTER
        rows.append(row | {"row_hash": row_hash(row), "table": "spans"})
    return rows


def _lines(parts: dict[int, dict[str, Any]], own: Any, config: Config) -> list[tuple[int, int, str, str, int]]:
    part, documents = parts[LINE], int(parts[SITE]["holders"].sum())
    mask = lines.chosen(part, documents, config.rule("lines"))
    mask &= ~(own & (part["place"] == part["first_place"]))
    return _as_spans("lines", part, np.flatnonzero(mask), np.flatnonzero(mask))


def _windows(part: dict[str, Any], own: Any, config: substrings.Config) -> list[tuple[int, int, str, str, int]]:
    number, first = part["place"] >> 32, part["first_place"] >> 32
    length = config.tokens
    repeat = np.flatnonzero(~own | (config.within & (number - first >= length)))
    if not repeat.size:
        return []
    number, first, name = number[repeat], first[repeat], part["first_id"][repeat]
    follows = (number[1:] == number[:-1] + 1) & (first[1:] == first[:-1] + 1) & (name[1:] == name[:-1])
    heads = np.concatenate(([0], np.flatnonzero(~follows) + 1))
    tails = np.concatenate((heads[1:] - 1, [repeat.size - 1]))
    needed = _cover(number[heads].tolist(), (number[tails] + length).tolist())
    return _as_spans("substrings", part, repeat[heads[needed]], repeat[tails[needed]])


def _cover(starts: list[int], ends: list[int]) -> list[int]:
    """Of intervals in ascending order the fewest that cover what all of them cover."""
    needed: list[int] = []
    covered, index = -1, 0
    while index < len(starts):
        while index + 1 < len(starts) and starts[index + 1] <= covered:
            index += 1  # of those that begin where it is covered the last reaches farthest: ends ascend as starts do
        if ends[index] > covered:
            needed.append(index)
            covered = ends[index]
        index += 1
    return needed


def _as_spans(rule: str, part: dict[str, Any], heads: Any, tails: Any) -> list[tuple[int, int, str, str, int]]:
    """Spans from the start of each head to the end of its tail."""
    starts, ends = (part["place"][heads] & _CHARACTER).tolist(), part["end"][tails].tolist()
    names, firsts = part["first_id"][heads].tolist(), part["first_place"][heads].tolist()
    return [(s, e, rule, name, first) for s, e, name, first in zip(starts, ends, names, firsts, strict=True)]
