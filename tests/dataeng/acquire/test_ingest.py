"""Ready text becomes documents; every line that is none is a dropped row with its place."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.acquire.ingest import Config, ingest_file, input_files, lines
from dataeng.cli import UserError
from dataeng.document import text_id

CONFIG = Config(input=["x"], source="books")


def rows_of(tmp_path, data: bytes, name="x.jsonl", config=CONFIG):
    path = tmp_path / name
    path.write_bytes(data)
    return list(ingest_file(str(path), name, config))


def test_rows_and_their_places(tmp_path):
    good = json.dumps({"id": 7, "text": "A text.\r\n", "author": "Jane", "url": "u", "language": "en"}).encode()
    bad = [b"{broken", b'"a string"', b'{"id": "no text"}', b'{"text": "  "}', b'{"text": 5}']
    data = b"\n".join([good, *bad, b"", b'{"text": "last"}'])
    *rows, counts = rows_of(tmp_path, data)
    rules = [row["rule"] for row in rows]
    assert rules == [None, "damaged", "damaged", "no_text", "no_text", "no_text", None]
    assert counts["metadata"] == {"captures": "5", "damaged": "2", "skipped": "0"}
    assert (rows[0]["id"], rows[0]["text"], rows[0]["metadata"]) == (
        text_id("books", "7", ""),
        "A text.",
        {"author": "Jane"},
    )
    assert rows[-1]["id"] == text_id("books", None, "last")
    for row in rows:
        json_line = data[row["offset"] : row["offset"] + row["length"]].rstrip(b"\n")
        assert json_line in (good, *bad, b'{"text": "last"}')


@settings(deadline=None)
@given(st.lists(st.binary(max_size=50).map(lambda b: b.replace(b"\n", b"")), max_size=20), st.booleans())
def test_lines_cover_the_file(tmp_path_factory, parts, packed):
    data = b"\n".join(parts)
    path = tmp_path_factory.mktemp("l") / ("x.jsonl.gz" if packed else "x.jsonl")
    path.write_bytes(gzip.compress(data[:30]) + gzip.compress(data[30:]) if packed else data)
    found = list(lines(str(path), 1 << 20))
    assert [line for _, _, line in found] == (parts[:-1] if parts and not parts[-1] else parts)
    assert sum(length for _, length, _ in found) == len(data)
    assert [offset for offset, _, _ in found] == [sum(length for _, length, _ in found[:n]) for n in range(len(found))]


def test_a_line_past_the_bound_is_damaged_and_the_next_is_read(tmp_path):
    data = b'{"text": "' + b"x" * 5_000_000 + b'"}\n{"text": "next"}\n'
    rows = rows_of(tmp_path, data, config=Config(input=["x"], line_bytes=100_000))
    assert [(row["rule"], row["text"]) for row in rows[:2]] == [("damaged", None), (None, "next")]
    assert rows[1]["offset"] == data.index(b'{"text": "next"}')


def test_gzip_cut_short_keeps_what_stands_before(tmp_path):
    whole = b"".join(json.dumps({"text": f"text {n} " * 20}).encode() + b"\n" for n in range(2000))
    packed = gzip.compress(whole)
    *rows, counts = rows_of(tmp_path, packed[: len(packed) // 2], "x.jsonl.gz")
    assert [row["rule"] for row in rows[-2:]] == [None, "damaged"]
    assert len(rows) > 100
    assert counts["metadata"]["damaged"] == "1"


def test_parquet(tmp_path):
    table = pa.table({"id": ["a", None], "body": ["one", "two"], "title": ["T", None], "other": [1, 2]})
    pq.write_table(table, tmp_path / "x.parquet")
    config = Config(input=["x"], source="s", text_field="body")
    *rows, _ = ingest_file(str(tmp_path / "x.parquet"), "x.parquet", config)
    assert [(row["text"], row["offset"], row["metadata"]) for row in rows] == [
        ("one", 0, {"title": "T"}),
        ("two", 1, {}),
    ]
    assert [row["id"] for row in rows] == [text_id("s", "a", "one"), text_id("s", None, "two")]
    with pytest.raises(UserError, match="has no column 'text'"):
        list(ingest_file(str(tmp_path / "x.parquet"), "x.parquet", CONFIG))
    assert [row["rule"] for row in rows_of(tmp_path, b"no parquet", "y.parquet")] == ["damaged", None]


def test_inputs(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    (tmp_path / "b.csv").write_text("x")
    assert [file["file"] for file in input_files(Config(input=[str(tmp_path)]))] == ["a.jsonl"]
    for pattern in ("b.csv", "missing.jsonl"):
        with pytest.raises(UserError, match=pattern):
            input_files(Config(input=[f"{tmp_path}/{pattern}"]))


def test_books(data_dir):
    path = data_dir / "books" / "books.jsonl.gz"
    *rows, counts = ingest_file(str(path), path.name, CONFIG)
    assert counts["metadata"] == {"captures": "60", "damaged": "0", "skipped": "0"}
    assert all(row["table"] == "kept" and row["metadata"]["author"] for row in rows)
    assert sum(len(row["text"]) for row in rows) > 20_000_000
