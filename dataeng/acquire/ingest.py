"""Step `ingest`: ready text (rows, files, code, questions with answers) becomes documents without extraction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from dataeng import storage
from dataeng.acquire.questions import post_rows, question_row
from dataeng.acquire.ready import Place, dropped, kept, lines
from dataeng.acquire.source_code import CODE_ENDINGS, LANGUAGES, TEXT_ENDINGS, file_rows, language_of
from dataeng.cli import UserError
from dataeng.document import row_hash
from dataeng.recipe import Table, runtime
from dataeng.sources import Row, counts_row, entries

_JSONL = (".jsonl", ".ndjson")
_PLAIN = {"rows": _JSONL, "text": TEXT_ENDINGS, "code": CODE_ENDINGS, "questions": (*_JSONL, ".xml")}
ENDINGS = {kind: (*names, *(name + ".gz" for name in names)) for kind, names in _PLAIN.items()}
ENDINGS["rows"] += (".parquet",)


class Config(Table):
    """Table `ingest`: which files, and what their fields are called."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("lxml", "resiliparse", "charset-normalizer")

    input: list[str] = runtime(min_length=1, description="Files (plain or .gz), folders or patterns, local or s3://")
    kind: Literal["rows", "text", "code", "questions"] = Field(
        "rows",
        description="JSONL and Parquet; text files and books, or source code, a document a file; "
        "questions with accepted answers (Posts.xml or JSONL)",
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
    licence: str | None = Field(None, description="Licence of texts that name none")
    date: str | None = Field(None, description="Date (ISO 8601) of texts that name none")
    programming_languages: list[str] = Field([], description="Code: only files of these languages; empty takes all")
    question_field: str = Field("question", description="Questions in JSONL: a text, or an object with title and body")
    answers_field: str = Field("answers", description="Their answers: a list of texts or objects")
    accepted_field: str = Field("accepted", description="The accepted one: its id, its place in the list, or its text")
    question_url: str | None = Field(None, description="Posts.xml: address of a question, {id} standing for its number")
    text_bytes: int = Field(256 << 20, ge=1, description="Largest text or code file, inflated (rule too_large)")
    minimum_characters: int = Field(1, ge=1, description="Texts with fewer characters are dropped (rule no_text)")
    line_bytes: int = Field(
        256 << 20, ge=1, description="Longest line of JSONL or XML; longer ones are dropped (rule damaged)"
    )
    slice_bytes: int = runtime(4 << 30, ge=1, description="Bytes of input that are published as one slice")

    @field_validator("programming_languages")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in LANGUAGES:
                raise ValueError(f"{name}: is no known language; known: {', '.join(LANGUAGES)}")
        return names


def row_of(record: Any, config: Config, place: Place) -> Row:
    """The row of one record: kept, or dropped as ``damaged`` (no object) or ``no_text``."""
    if not isinstance(record, Mapping):
        return dropped("damaged", config, place)
    text, own_id = record.get(config.text_field), record.get(config.id_field)
    metadata = {name: record.get(name) for name in config.metadata_fields}
    if "licence" in metadata:
        metadata["licence"] = metadata["licence"] or record.get("license")
    return kept(
        config,
        place,
        text if isinstance(text, str) else "",
        None if own_id is None else str(own_id),
        metadata,
        url=record.get(config.url_field),
        date=record.get(config.date_field),
        language=record.get(config.language_field),
    )


def _jsonl_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    make = question_row if config.kind == "questions" else row_of
    for offset, length, line in lines(path, config.line_bytes):
        if line is not None and not line.strip():
            continue
        try:
            record = json.loads(line) if line is not None else None
        except (ValueError, RecursionError):
            record = None
        yield make(record, config, Place(name, offset, length))


def _parquet_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    """Rows of a Parquet file; their offset is their number in it. Raises UserError without a text column."""
    wanted = [config.text_field, config.id_field, config.url_field, config.date_field, config.language_field, "license"]
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source:
        try:
            parquet = pq.ParquetFile(source)
        except pa.ArrowInvalid:
            yield dropped("damaged", config, Place(name, 0, source.size()))
            return
        names = parquet.schema_arrow.names
        if config.text_field not in names:
            raise UserError(f"{path}: has no column {config.text_field!r}: set ingest.text_field to one of {names}")
        first = 0
        columns = list(dict.fromkeys(n for n in (*wanted, *config.metadata_fields) if n in names))
        for group in range(parquet.num_row_groups):
            number = first
            try:
                for batch in parquet.iter_batches(256, [group], columns):
                    for record in _records(batch):
                        place = Place(name, number, None)
                        yield dropped("damaged", config, place) if record is None else row_of(record, config, place)
                        number += 1
            except (pa.ArrowException, OSError) as error:
                if not _is_damage(error):
                    raise
                yield dropped("damaged", config, Place(name, number, None))  # what is left of this group
            first += parquet.metadata.row_group(group).num_rows


def _is_damage(error: Exception) -> bool:
    """Whether reading failed for what the file holds, not for the storage (whose errors have a number or a name)."""
    return isinstance(error, pa.ArrowException) or (
        getattr(error, "errno", 1) is None and "AWS Error" not in str(error)
    )


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """A batch's rows; None for one with a text that is no UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                yield None


def _rows(path: str, name: str, config: Config) -> Iterator[Row]:
    if config.kind in ("text", "code"):
        return file_rows(path, name, config)
    if config.kind == "questions" and path.removesuffix(".gz").endswith(".xml"):
        return post_rows(path, name, config)
    return (_parquet_rows if path.endswith(".parquet") else _jsonl_rows)(path, name, config)


def ingest_file(path: str, name: str, config: Config, stage: str = "ingest") -> Iterator[Row]:
    """The rows of one file, ``name`` being its ``file``; last comes its row of counts (table ``captures``).

    ``stage`` is the table's name in the recipe: what dropped rows say.
    """
    counts: Counter[str] = Counter()
    for row in _rows(path, name, config):
        if row["table"] == "dropped" and row["stage"] != stage:
            row["stage"] = stage
            row["row_hash"] = row_hash(row)
        counts["damaged" if row["rule"] == "damaged" else "captures"] += 1
        yield row
    yield counts_row(name, config.source, counts["captures"], counts["damaged"], 0)


def _reads(name: str, config: Config) -> bool:
    if config.kind == "code":
        if any(part.startswith(".") for part in name.split("/")[:-1]):
            return False  # .git, .venv and their like are no part of what was written
        language = language_of(name)
        return language is not None and language in (config.programming_languages or LANGUAGES)
    return name.endswith(ENDINGS[config.kind])


def input_files(config: Config) -> list[dict[str, Any]]:
    """The files that ``input`` names, each once: path, file, size, tag. Raises UserError for what is missing.

    Of folders and patterns those that the kind reads are taken; a file named by itself must be one of them.
    """
    named = []
    for pattern in config.input:
        found = storage.expand(pattern)
        fitting = [item for item in found if _reads(item[0], config)]
        if not fitting:
            what = ", ".join(ENDINGS[config.kind]) if config.kind != "code" else "source code"
            raise UserError(f"{found[0][1].path if len(found) == 1 else pattern}: ingest of {config.kind} reads {what}")
        named += fitting
    return entries("ingest", named)
