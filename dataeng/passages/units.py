"""What is counted across documents, as rows of numbers: sites, lines, runs and windows of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataeng.passages import Config, lines, substrings
from dataeng.passages.tokens import tokens

SITE, LINE, RUN, WINDOW = range(4)
_ROWS, _PARTS = 1 << 16, 1 << 12  # rows a batch, and parts that it is put together from

# One occurrence. `key` and `more` are a hash of what occurs; `rank` orders documents, before their id; `place` is
# the number of the line or token, times 2^32, plus the character at which it starts; `end` is the character after it;
# `words` those of a line; the sum of `weight` over a key is how often it occurs (of a line: in how many documents).
UNITS = pa.schema(
    [
        ("kind", pa.int8()),
        ("key", pa.int64()),
        ("more", pa.int64()),
        ("rank", pa.int64()),
        ("id", pa.string()),
        ("place", pa.int64()),
        ("end", pa.int64()),
        ("words", pa.int64()),
        ("weight", pa.int64()),
    ]
)
Columns = dict[str, NDArray[Any] | int]


def hash64(text: str) -> int:
    """The first 64 bits of a text's BLAKE2b, signed."""
    data = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(data, "little", signed=True)


def rank(row: Mapping[str, Any]) -> int:
    """What orders documents: a hash of the URL, which another crawl does not change; without one, of the id."""
    return hash64(row["url"] or row["id"])


def units(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """UNITS of documents (id, url, source, text): their site and lines, and the runs that stand for their windows."""

    def of_row(row: Mapping[str, Any]) -> Iterator[tuple[int, Columns]]:
        text = row["text"] or ""
        found = tokens(text)
        if "lines" in config.rules:
            site = lines.site(row["url"], row["source"])
            yield SITE, {"key": np.array([hash64(site)]), "weight": 1}
            yield LINE, lines.occurrences(text, found, site)
        if "substrings" in config.rules:
            yield RUN, substrings.runs(found, config.rule("substrings").tokens)

    return _written(batches, of_row)


def windows(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """UNITS of the windows of documents (id, url, text) whose runs are among ``places``: the others occur once."""

    def of_row(row: Mapping[str, Any]) -> Iterator[tuple[int, Columns]]:
        yield WINDOW, substrings.windows(row["text"] or "", row["places"], config.rule("substrings").tokens)

    return _written(batches, of_row)


def _written(
    batches: Iterable[pa.RecordBatch], of_row: Callable[[Mapping[str, Any]], Iterator[tuple[int, Columns]]]
) -> Iterator[pa.RecordBatch]:
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        for row in batch.to_pylist():
            for kind, columns in of_row(row):
                waiting.append(_batch(kind, rank(row), row["id"], columns))
                count += waiting[-1].num_rows
            if count >= _ROWS or len(waiting) >= _PARTS:
                yield _together(waiting)
                waiting, count = [], 0
    yield _together(waiting)


def _together(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=UNITS)
    return pa.concat_batches(batches)


def _batch(kind: int, order: int, identifier: str, columns: Columns) -> pa.RecordBatch:
    count = len(columns["key"])  # type: ignore[arg-type]
    values: dict[str, Any] = {"kind": kind, "rank": order, "more": 0, "place": 0, "end": 0, "words": 0} | columns
    values |= {name: np.full(count, value) for name, value in values.items() if isinstance(value, int)}
    arrays = [
        pa.repeat(identifier, count) if field.name == "id" else pa.array(values[field.name]).cast(field.type)
        for field in UNITS
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=UNITS)
