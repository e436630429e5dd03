"""A document, what a filter says of it, and the rows that stages write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import pyarrow as pa

Bound = Literal["min", "max"]


@dataclass(slots=True)
class Document:
    """One text with its provenance. ``offset`` and ``length`` are bytes of the capture in ``file``."""

    id: str
    text: str | None
    url: str | None = None
    source: str = ""
    date: str | None = None
    language: str | None = None
    language_score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    offset: int | None = None
    length: int | None = None


class Verdict(NamedTuple):
    """Whether a filter keeps a document; if not, the first rule that failed, its score and bound."""

    keep: bool
    rule: str | None = None
    score: float | None = None
    threshold: float | None = None
    bound: Bound | None = None


KEEP = Verdict(True)

DOCUMENT = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("url", pa.string()),
        ("source", pa.string()),
        ("date", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("metadata", pa.map_(pa.string(), pa.string())),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)
DROPPED = pa.schema(
    [
        *DOCUMENT,
        ("stage", pa.string()),
        ("rule", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("bound", pa.string()),
        ("duplicate_of", pa.string()),
        ("matched", pa.string()),
        ("similarity", pa.float64()),
    ]
)
# What a document stage writes in one query: `table` says which of its tables a row belongs to.
ROW = pa.schema([*DROPPED, ("row_hash", pa.string()), ("table", pa.string())])
_FLOATS = ("language_score", "score", "threshold", "similarity")


def digest(*parts: str) -> str:
    """The first 32 hex digits of SHA-256 over the parts, kept apart by a zero byte."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def capture_id(record_id: str | None, file: str, offset: int) -> str:
    """The id of a capture: of its WARC-Record-ID or, without one, of ``file#offset``."""
    return digest(record_id) if record_id else digest(f"{file}#{offset}")


def text_id(source: str, own_id: str | None, text: str) -> str:
    """The id of ready text: of its source and own id or, without one, of its source and text."""
    return digest(source, own_id) if own_id else digest(source, text)


def rounded(value: Any) -> Any:
    """The value with every float in it rounded to the 6 decimals that rows are hashed with."""
    if isinstance(value, float):
        return round(value, 6) + 0.0  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, Mapping):
        return {key: rounded(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def row_hash(row: Mapping[str, Any]) -> str:
    """BLAKE2b-128 (32 hex digits) over canonical JSON of all columns but ``row_hash`` and ``table``."""
    columns = {key: rounded(row[key]) for key in row if key not in ("row_hash", "table")}
    text = json.dumps(columns, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _whole(text: str) -> str:
    """The text with half surrogate pairs replaced: a hostile page may hold some, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def from_row(row: Mapping[str, Any]) -> Document:
    """A document from a row of any document table (maps may be dicts or lists of pairs)."""
    values: dict[str, Any] = {name: row.get(name) for name in DOCUMENT.names}
    values["scores"] = dict(values["scores"] or {})
    values["metadata"] = dict(values["metadata"] or {})
    values["source"] = values["source"] or ""
    return Document(**values)


def to_row(document: Document, table: str = "kept", **more: Any) -> dict[str, Any]:
    """A row of ``ROW``, hashed. ``more`` holds the columns that ``DROPPED`` adds."""
    row: dict[str, Any] = {name: getattr(document, name) for name in DOCUMENT.names}
    row |= {name: None for name in DROPPED.names if name not in row} | more
    unknown = row.keys() - set(DROPPED.names)
    if unknown:
        raise KeyError(f"not columns of a dropped document: {sorted(unknown)}")
    # As Parquet gives them back: whole numbers as floats, no halves of surrogate pairs; else `verify` would differ.
    row["scores"] = rounded({_whole(key): _number(value) for key, value in row["scores"].items()})
    row["metadata"] = {_whole(key): _whole(str(row["metadata"][key])) for key in sorted(row["metadata"])}
    row |= {name: rounded(_number(row[name])) for name in _FLOATS}
    row |= {name: _whole(value) for name, value in row.items() if isinstance(value, str)}
    return row | {"row_hash": row_hash(row), "table": table}


def to_dropped(document: Document, stage: str, verdict: Verdict, **more: Any) -> dict[str, Any]:
    """The row of a document that ``stage`` drops, saying why."""
    why = {"rule": verdict.rule, "score": verdict.score, "threshold": verdict.threshold, "bound": verdict.bound}
    return to_row(document, "dropped", stage=stage, **why, **more)


def to_batch(rows: Iterable[Mapping[str, Any]], schema: pa.Schema = ROW) -> pa.RecordBatch:
    """Rows as one Arrow batch; maps are written with their keys in order."""
    maps = [f.name for f in schema if pa.types.is_map(f.type)]
    plain = [{**row, **{name: list((row[name] or {}).items()) for name in maps}} for row in rows]
    return pa.RecordBatch.from_pylist(plain, schema=schema)


def with_text(document: Document, text: str, **metadata: str) -> Document:
    """A copy with another text (a transform's result) and more metadata."""
    return replace(document, text=text, metadata=document.metadata | metadata)
