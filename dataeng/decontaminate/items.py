"""Reads evaluation sets: the texts of each item and its answers."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dataeng import storage
from dataeng.cli import UserError, one_line
from dataeng.decontaminate import EvaluationSet

Record = dict[str | int, Any]
TASK_FIELDS, TASK_ANSWER = ("instruction", "input"), "output"
HUMANEVAL = ("prompt", "test", "canonical_solution", "entry_point")
_LETTERS = "ABCDEFGHIJ"


class Item(NamedTuple):
    """An evaluation item: its name (``set/number``, from 0), its texts, its answers and the options to choose from."""

    name: str
    texts: list[str]
    answers: Sequence[str] = ()
    options: Sequence[str] = ()


def read_set(entry: EvaluationSet) -> list[Item]:
    """The items of a set; raises UserError, naming file, field and the fields there are."""
    try:
        data = storage.read_bytes(entry.path)
    except FileNotFoundError:
        raise UserError(f"{entry.path}: the evaluation set {entry.name!r} is not there") from None
    records = list(_records(entry.path, data))
    layout = entry.format or (None if entry.fields else _layout(records))
    if records and not layout and not entry.fields:
        known = ", ".join(str(name) for name in records[0][1])
        raise UserError(
            f"{entry.path}: the evaluation set {entry.name!r} names no fields, and its layout is none that is known "
            f"(mmlu, humaneval): give fields = [...]; the file's: {known}"
        )
    if layout == "mmlu" and records and _is_header(records[0][1]):
        records = records[1:]
    if not records:
        raise UserError(f"{entry.path}: the evaluation set {entry.name!r} is empty")
    read = {"mmlu": _mmlu, "humaneval": _humaneval}.get(layout or "")
    return [
        read(name, record, place) if read else _named(name, record, place, entry)
        for name, (place, record) in ((f"{entry.name}/{number}", one) for number, one in enumerate(records))
    ]


def read_tasks(paths: Sequence[str], name: str = "tasks") -> list[Item]:
    """The items of generated tasks: what the model is asked, instruction and input together, and the answer."""
    items: list[Item] = []
    for path in paths:
        for place, record in _records(path, storage.read_bytes(path)):
            text = "\n".join(one for field in TASK_FIELDS for one in _texts(record, field, place))
            items.append(Item(f"{name}/{len(items)}", [text], _texts(record, TASK_ANSWER, place)))
    return items


def _named(name: str, record: Record, place: str, entry: EvaluationSet) -> Item:
    texts = [text for field in entry.fields for text in _texts(record, field, place)]
    answers = [text for field in entry.answers for text in _texts(record, field, place)]
    return Item(name, texts, answers) if answers else Item(name, texts)


def _is_header(record: Record) -> bool:
    return str(record.get(0, "")).strip().lower() == "question"


def _layout(records: Sequence[tuple[str, Record]]) -> str | None:
    """The known layout of a file's records, or None."""
    if not records:
        return None
    first = records[0][1]
    if all(name in first for name in HUMANEVAL[:3]):
        return "humaneval"
    if {"question", "choices", "answer"} <= first.keys():
        return "mmlu"
    rows = [record for _, record in records if not _is_header(record)]
    if all(list(record) == [0, 1, 2, 3, 4, 5] and _right(record[5], 4) is not None for record in rows):
        return "mmlu"
    return None


def _right(value: Any, options: int) -> int | None:
    """The number of the right option, given as a number or as its letter."""
    text = str(value).strip().upper()
    number = int(text) if text.isdecimal() else _LETTERS.find(text) if len(text) == 1 else -1
    return number if 0 <= number < options else None


def _mmlu(name: str, record: Record, place: str) -> Item:
    """A question, its options and the right one's letter: by column, or as `question`, `choices`, `answer`."""
    if 0 in record:
        cells = [str(value) for value in record.values()]
        question, options, answer = cells[0], cells[1:-1], cells[-1]
    else:
        question = "\n".join(_texts(record, "question", place))
        options, answer = _texts(record, "choices", place), "".join(_texts(record, "answer", place))
    right = _right(answer, len(options))
    if right is None:
        raise UserError(f"{place}: is not a row of MMLU: a question, its options, and the right one's letter or number")
    return Item(name, [question], [options[right]], options)


def _humaneval(name: str, record: Record, place: str) -> Item:
    """A function to complete: its prompt and its tests are looked for, its solution only beside a short prompt."""
    prompt, test, solution = (_texts(record, field, place) for field in HUMANEVAL[:3])
    return Item(name, [*prompt, *test], solution)


def _records(path: str, data: bytes) -> Iterator[tuple[str, Record]]:
    """The records of a file, each with its place for errors; columns of CSV go by number."""
    if path.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: cannot be read as Parquet: {one_line(error)}") from None
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
        return
    try:
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as an evaluation set: {error}") from None
    if path.removesuffix(".gz").endswith(".csv"):
        try:
            for number, cells in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
                if cells:
                    yield f"{path}, row {number}", dict(enumerate(cells))
        except csv.Error as error:
            raise UserError(f"{path}: cannot be read as CSV: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _parsed(line, place)


def _parsed(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: is not a JSON object")
    return record


def _texts(record: Record, field: str | int, place: str) -> list[str]:
    """The texts of a field: one, or those of a list; a dotted name goes inwards, into every entry of a list."""
    try:
        values = [record[field]] if field in record else _inner(record, str(field).split("."))
    except KeyError:
        known = ", ".join(str(name) for name in record)
        raise UserError(f"{place}: has no field {field!r}; its fields: {known}") from None
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return ["" if v is None else v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in flat]


def _inner(value: Any, parts: Sequence[str]) -> list[Any]:
    """The values at a dotted name; raises KeyError where there are none."""
    if not parts:
        return [value]
    if isinstance(value, list) and not parts[0].isdecimal():
        return [one for entry in value for one in _inner(entry, parts)]
    if isinstance(value, list) and int(parts[0]) < len(value):
        return _inner(value[int(parts[0])], parts[1:])
    if isinstance(value, dict) and parts[0] in value:
        return _inner(value[parts[0]], parts[1:])
    raise KeyError(parts[0])
