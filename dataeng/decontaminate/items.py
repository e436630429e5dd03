"""Reads evaluation sets: the texts of each item."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dataeng import storage
from dataeng.cli import UserError
from dataeng.decontaminate import EvaluationSet

TASK_FIELDS = ("instruction", "input")


class Item(NamedTuple):
    """An evaluation item: its name (``set/number``, from 0) and the texts of its fields."""

    name: str
    texts: list[str]


def read_set(entry: EvaluationSet) -> list[Item]:
    """The items of a set; raises UserError, naming file, field and the fields there are."""
    try:
        data = storage.read_bytes(entry.path)
    except FileNotFoundError:
        raise UserError(f"{entry.path}: the evaluation set {entry.name!r} is not there") from None
    items = []
    for number, (place, record) in enumerate(_records(entry.path, data)):
        texts = [_text(record, field, place) for field in entry.fields]
        items.append(Item(f"{entry.name}/{number}", texts))
    if not items:
        raise UserError(f"{entry.path}: the evaluation set {entry.name!r} is empty")
    return items


def read_tasks(paths: Sequence[str], name: str = "tasks") -> list[Item]:
    """The items of generated tasks: what the model is asked, instruction and input together."""
    items: list[Item] = []
    for path in paths:
        for place, record in _records(path, storage.read_bytes(path)):
            text = "\n".join(_text(record, field, place) for field in TASK_FIELDS)
            items.append(Item(f"{name}/{len(items)}", [text]))
    return items


def _records(path: str, data: bytes) -> Iterator[tuple[str, dict[str | int, Any]]]:
    """The records of a file, each with its place for errors; columns of CSV go by number."""
    if path.endswith(".parquet"):
        import pyarrow.parquet as pq

        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
        return
    try:
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as an evaluation set: {error}") from None
    if path.removesuffix(".gz").endswith(".csv"):
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
            yield f"{path}, row {number}", dict(enumerate(cells))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _parsed(line, place)


def _parsed(line: str, place: str) -> dict[str | int, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: is not a JSON object")
    return record


def _text(record: dict[str | int, Any], field: str | int, place: str) -> str:
    if field not in record:
        known = ", ".join(str(name) for name in record)
        raise UserError(f"{place}: has no field {field!r}; its fields: {known}")
    value = record[field]
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
