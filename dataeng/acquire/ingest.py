"""Step `ingest`: ready text (JSONL, Parquet) becomes documents without extraction."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from dataeng import storage
from dataeng.cli import UserError
from dataeng.document import Document, Verdict, digest, text_id, to_dropped, to_row
from dataeng.extract.tidy import one_line, tidy
from dataeng.recipe import Table, runtime
from dataeng.sources import Row, counts_row, entries

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".parquet")
_CHUNK = 1 << 20


class Config(Table):
    """Table `ingest`: which files, and what their fields are called."""

    version: ClassVar[int] = 1

    input: list[str] = runtime(
        min_length=1, description="JSONL (plain or .gz) and Parquet: files, folders or patterns, local or s3://"
    )
    source: str = Field("text", min_length=1, description="What documents give as their source")
    text_field: str = Field("text", description="Field of the text")
    id_field: str = Field("id", description="Field of the row's own id; may be missing")
    url_field: str = Field("url", description="Field of the address; may be missing")
    date_field: str = Field("date", description="Field of the date (ISO 8601); may be missing")
    language_field: str = Field("language", description="Field of the language code; may be missing")
    metadata_fields: list[str] = Field(
        ["title", "author", "licence"], description="Fields kept as metadata where present"
    )
    minimum_characters: int = Field(1, ge=1, description="Texts with fewer characters are dropped (rule no_text)")
    line_bytes: int = Field(
        256 << 20, ge=1, description="Longest line of JSONL; longer ones are dropped (rule damaged)"
    )
    slice_bytes: int = runtime(4 << 30, ge=1, description="Bytes of input that are published as one slice")


Line = tuple[int, int, bytes | None]  # byte offset in the (inflated) file, length, content; None where too long


def _inflated(path: str) -> Iterator[bytes]:
    """A file's bytes in pieces, inflated where it is gzip; raises zlib.error where that is damaged or cut short."""
    with storage.open_stream(path) as stream:
        if not path.endswith(".gz"):
            while piece := stream.read(_CHUNK):
                yield piece
            return
        inflater = zlib.decompressobj(31)
        while raw := stream.read(_CHUNK):
            while raw:
                if inflater.eof:
                    raw = raw.lstrip(b"\0")
                    inflater = zlib.decompressobj(31) if raw else inflater
                    if not raw:
                        break
                yield inflater.decompress(raw, _CHUNK)
                raw = inflater.unused_data or inflater.unconsumed_tail
        if not inflater.eof:
            raise zlib.error("cut short")


def lines(path: str, most: int) -> Iterator[Line]:
    """The lines of a JSONL file with their byte offsets; after damaged gzip bytes comes one last line None."""
    offset, held, skipping = 0, b"", 0
    try:
        for piece in _inflated(path):
            parts = (held + piece).split(b"\n")
            held = parts.pop()
            for part in parts:
                length = skipping + len(part) + 1
                yield offset, length, None if skipping else part
                offset, skipping = offset + length, 0
            if len(held) > most:
                skipping, held = skipping + len(held), b""
    except zlib.error:
        yield offset, skipping + len(held), None
        return
    if held or skipping:
        yield offset, skipping + len(held), None if skipping else held


def _text_of(value: Any) -> str | None:
    return None if value is None else one_line(str(value)) or None


def row_of(record: Any, config: Config, file: str, offset: int, length: int | None) -> Row:
    """The row of one record: kept, or dropped as ``damaged`` (no object) or ``no_text``."""
    place = {"file": file, "offset": offset, "length": length}
    if not isinstance(record, Mapping):
        return _dropped("damaged", config, place)
    text = record.get(config.text_field)
    tidied = tidy(text) if isinstance(text, str) else ""
    own_id = record.get(config.id_field)
    if len(tidied) < config.minimum_characters:
        return _dropped("no_text", config, place, str(own_id) if own_id is not None else None)
    metadata = {name: _text_of(record.get(name)) for name in config.metadata_fields}
    document = Document(
        text_id(config.source, str(own_id) if own_id is not None else None, tidied),
        tidied,
        url=_text_of(record.get(config.url_field)),
        source=config.source,
        date=_text_of(record.get(config.date_field)),
        language=_text_of(record.get(config.language_field)),
        metadata={name: value for name, value in metadata.items() if value},
        file=file,
        offset=offset,
        length=length,
    )
    return to_row(document)


def _dropped(rule: str, config: Config, place: dict[str, Any], own_id: str | None = None) -> Row:
    identifier = digest(f"{place['file']}#{place['offset']}")
    metadata = {"own_id": own_id} if own_id else {}
    document = Document(identifier, None, source=config.source, metadata=metadata, **place)
    return to_dropped(document, "ingest", Verdict(False, rule))


def _jsonl_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    for offset, length, line in lines(path, config.line_bytes):
        if line is not None and not line.strip():
            continue
        try:
            record = json.loads(line) if line is not None else None
        except (ValueError, RecursionError):
            record = None
        yield row_of(record, config, name, offset, length)


def _parquet_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    """Rows of a Parquet file; their offset is their number in it. Raises UserError without a text column."""
    wanted = [config.text_field, config.id_field, config.url_field, config.date_field, config.language_field]
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source:
        try:
            parquet = pq.ParquetFile(source)
        except pa.ArrowInvalid:
            yield _dropped("damaged", config, {"file": name, "offset": 0, "length": source.size()})
            return
        names = parquet.schema_arrow.names
        if config.text_field not in names:
            raise UserError(f"{path}: has no column {config.text_field!r}: set ingest.text_field to one of {names}")
        number = 0
        for batch in parquet.iter_batches(256, columns=[n for n in (*wanted, *config.metadata_fields) if n in names]):
            for record in batch.to_pylist():
                yield row_of(record, config, name, number, None)
                number += 1


def ingest_file(path: str, name: str, config: Config) -> Iterator[Row]:
    """The rows of one file, ``name`` being its ``file``; last comes its row of counts (table ``captures``)."""
    counts: Counter[str] = Counter()
    for row in (_parquet_rows if path.endswith(".parquet") else _jsonl_rows)(path, name, config):
        counts["damaged" if row["rule"] == "damaged" else "captures"] += 1
        yield row
    yield counts_row(name, config.source, counts["captures"], counts["damaged"], 0)


def input_files(config: Config) -> list[dict[str, Any]]:
    """The files that ``input`` names, each once: path, file, size, tag. Raises UserError for what is missing."""
    named = [item for pattern in config.input for item in storage.expand(pattern, ENDINGS)]
    for _, entry in named:
        if not entry.path.endswith(ENDINGS):
            raise UserError(f"{entry.path}: ingest reads {', '.join(ENDINGS)}")
    return entries("ingest", named)
