"""What is computed for one document: its signature row, its rank among duplicates, its verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pyarrow as pa

from dataeng.dedup import Config, score_of
from dataeng.dedup.minhash import bands, shingles
from dataeng.dedup.normalise import exact_hash
from dataeng.document import ROW, Verdict, from_row, row_hash, to_batch, to_dropped, to_row

KEY = [("path", pa.string()), ("row", pa.int64())]  # where a row stands in the input's files
# A document as the joins carry it: no text.
LIGHT = pa.schema(
    [
        *KEY,
        ("id", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("row_hash", pa.string()),
        ("exact", pa.string()),
        ("rank", pa.float64()),
        ("shingles", pa.int64()),
        ("bands", pa.list_(pa.int64())),
        ("stands", pa.string()),  # who stands for it if it survives: itself; of an earlier run's document its survivor
    ]
)
SETS = pa.schema([("id", pa.string()), ("values", pa.list_(pa.int64()))])  # shingles as signed 64-bit
# Table `signatures`: one row an id. `bands` is empty under `minimum_shingles`.
SIGNATURES = pa.schema(
    [
        ("id", pa.string()),
        ("exact", pa.string()),
        ("shingles", pa.int64()),
        ("bands", pa.list_(pa.int64())),
        ("survivor", pa.string()),
        ("row_hash", pa.string()),
        ("table", pa.string()),
    ]
)


def rank(row: Mapping[str, Any], keep: str) -> float:
    """The lower, the rather a document survives: by characters, date or a score; +inf where it has none."""
    if keep == "longest":
        return -float(len(row["text"] or ""))
    if keep == "earliest":
        return _seconds(row["date"])
    score = dict(row["scores"] or ()).get(score_of(keep))
    return math.inf if score is None or math.isnan(score) else -float(score)


def _seconds(date: str | None) -> float:
    try:
        found = datetime.fromisoformat(date or "")
    except ValueError:
        return math.inf
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def sign(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """LIGHT rows of document rows with their place (``path``, ``row``)."""
    for batch in batches:
        rows = []
        for row in batch.to_pylist():
            text = row["text"] or ""
            values = shingles(text, config.shingle_words)
            signed = bands(values, config).view("int64").tolist() if values.size >= config.minimum_shingles else []
            light = {name: row[name] for name in ("path", "row", "id", "file", "offset", "row_hash")}
            more = {"exact": exact_hash(text).hex(), "rank": rank(row, config.keep), "shingles": int(values.size)}
            more["stands"] = row["id"]
            rows.append(light | more | {"bands": signed})
        yield pa.RecordBatch.from_pylist(rows, schema=LIGHT)


def sets_of(words: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """``sets`` for shingles of so many words."""
    return partial(sets, words=words)


def sets(batches: Iterable[pa.RecordBatch], words: int) -> Iterator[pa.RecordBatch]:
    """The shingle sets of rows with ``id`` and ``text``."""
    for batch in batches:
        found = [shingles(text or "", words).view("int64") for text in batch.column("text").to_pylist()]
        yield pa.RecordBatch.from_arrays([batch.column("id"), pa.array(found, pa.list_(pa.int64()))], schema=SETS)


def verdict(row: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The row of table kept or dropped for a document joined with what was decided of its cluster.

    A kept document's metadata gets ``cluster``: the least exact hash among the cluster's texts, which
    does not change when the same pages are crawled again.
    """
    document = from_row(row)
    identifier, representative, survivor = document.id, row["representative"], row["survivor"]
    if not row["first"]:
        why = Verdict(False, "duplicate_id")
        return to_dropped(document, "dedup", why, duplicate_of=survivor, matched=identifier)
    if identifier != representative:
        why = Verdict(False, "exact", 1.0, 1.0, "max")
        return to_dropped(document, "dedup", why, duplicate_of=survivor, matched=representative, similarity=1.0)
    if identifier != survivor:
        similarity, matched = row["similarity"], row["matched"]
        why = Verdict(False, "near_duplicate", similarity, config.threshold, "max")
        return to_dropped(document, "dedup", why, duplicate_of=survivor, matched=matched, similarity=similarity)
    document.metadata["cluster"] = row["cluster"][:32]
    return to_row(document)


def decide(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """The rows of tables kept and dropped, hashed."""
    for batch in batches:
        yield to_batch([verdict(row, config) for row in batch.to_pylist()], ROW)


def signatures(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of table `signatures`, hashed."""
    names = [name for name in SIGNATURES.names if name not in ("row_hash", "table")]
    for batch in batches:
        rows = [{name: row[name] for name in names} for row in batch.to_pylist()]
        hashed = [row | {"row_hash": row_hash(row), "table": "signatures"} for row in rows]
        yield pa.RecordBatch.from_pylist(hashed, schema=SIGNATURES)
