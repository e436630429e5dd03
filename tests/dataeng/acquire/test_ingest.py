"""Ready text becomes documents; every line that is none is a dropped row with its place."""

from __future__ import annotations

import gzip
import json
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.acquire.ingest import Config, ingest_file, input_files
from dataeng.acquire.ready import lines
from dataeng.cli import UserError
from dataeng.document import row_hash, text_id

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


def test_a_damaged_row_group_costs_itself_alone(tmp_path):
    texts = [f"text {n} " + "x" * 50 for n in range(3000)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, use_dictionary=False, compression="zstd")
    data = bytearray(path.read_bytes())
    second = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[second + 40 : second + 90] = bytes(50)
    path.write_bytes(data)
    *rows, counts = ingest_file(str(path), "x.parquet", CONFIG)
    damaged = [row for row in rows if row["rule"] == "damaged"]
    assert len(damaged) == 1
    assert [row["text"] for row in rows if row["table"] == "kept"][-1000:] == texts[2000:]
    assert [row["text"] for row in rows][:1000] == texts[:1000]
    assert [row["offset"] for row in rows][-1000:] == list(range(2000, 3000))
    assert counts["metadata"]["damaged"] == "1"


def test_a_text_that_is_no_utf_8_costs_its_row_alone(tmp_path):
    array = pa.array([b"good", b"\xff\xfe bad", b"good too"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": array}), tmp_path / "x.parquet")
    *rows, _ = ingest_file(str(tmp_path / "x.parquet"), "x.parquet", CONFIG)
    assert [(row["text"], row["rule"], row["offset"]) for row in rows] == [
        ("good", None, 0),
        (None, "damaged", 1),
        ("good too", None, 2),
    ]


def test_dropped_rows_say_the_tables_name(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "fine"}\nnot JSON\n')
    kept, dropped, _ = ingest_file(str(tmp_path / "x.jsonl"), "x.jsonl", CONFIG, "books")
    assert (kept["stage"], dropped["stage"], dropped["rule"]) == (None, "books", "damaged")
    assert dropped["row_hash"] == row_hash(dropped)


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


def test_a_licence_and_a_date_where_a_row_has_none(tmp_path):
    config = Config(input=["x"], licence="CC0-1.0", date="2020-01-01")
    data = b'{"text": "a"}\n{"text": "b", "license": "MIT", "date": "2021"}\n{"text": "c", "licence": "GPL"}\n'
    rows = rows_of(tmp_path, data, config=config)[:3]
    assert [row["metadata"]["licence"] for row in rows] == ["CC0-1.0", "MIT", "GPL"]
    assert [row["date"] for row in rows] == ["2020-01-01", "2021", "2020-01-01"]


def test_books_and_plain_texts(tmp_path):
    config = Config(input=[str(tmp_path)], kind="text", source="library", licence="public domain", text_bytes=10_000)
    (tmp_path / "Emma.txt").write_text("\ufeffChapter I\r\n\r\nEmma Woodhouse, handsome", encoding="utf-8")
    (tmp_path / "old.txt.gz").write_bytes(gzip.compress("Der Fluß über den Brücken fließt schön".encode("latin-1")))
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"x" * 5000)[:-10])
    (tmp_path / "bomb.txt.gz").write_bytes(gzip.compress(b"x" * 50_000_000))
    (tmp_path / "data.txt").write_bytes(b"\x00\x01\x02" * 100)
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "left.pdf").write_text("not read")
    files = input_files(config)
    rows = {file["file"]: next(ingest_file(file["path"], file["file"], config)) for file in files}
    assert {name: row["rule"] for name, row in rows.items()} == {
        "Emma.txt": None,
        "bomb.txt.gz": "too_large",
        "cut.txt.gz": "damaged",
        "data.txt": "binary",
        "empty.md": "no_text",
        "old.txt.gz": None,
    }
    assert rows["Emma.txt"]["text"] == "Chapter I\n\nEmma Woodhouse, handsome"
    assert rows["Emma.txt"]["metadata"] == {"title": "Emma", "licence": "public domain"}
    assert rows["old.txt.gz"]["text"] == "Der Fluß über den Brücken fließt schön"


def test_code_keeps_its_language_licence_and_indentation(tmp_path):
    files = {
        "a/x.py": "# SPDX-License-Identifier: Apache-2.0 OR MIT\ndef f():\n    return 1\n",
        "a/Makefile": "all:\n\techo\n",
        "b/main.go.gz": "package main\n",
        "b/photo.png": "no",
        "b/readme": "no",
        "c/lib.RS": "fn main() {}\n",
        ".venv/lib.py": "not the author's",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    config = Config(input=[str(tmp_path)], kind="code", source="repo", licence="unknown")
    rows = {f["file"]: next(ingest_file(f["path"], f["file"], config)) for f in input_files(config)}
    found = {name: (row["metadata"]["programming_language"], row["metadata"]["licence"]) for name, row in rows.items()}
    assert found == {
        "a/Makefile": ("Makefile", "unknown"),
        "a/x.py": ("Python", "Apache-2.0 OR MIT"),
        "b/main.go.gz": ("Go", "unknown"),
        "c/lib.RS": ("Rust", "unknown"),
    }
    assert rows["a/x.py"]["text"].endswith("def f():\n    return 1")
    assert rows["a/Makefile"]["text"] == "all:\n\techo"
    only = Config(input=[str(tmp_path)], kind="code", programming_languages=["Go"])
    assert [file["file"] for file in input_files(only)] == ["b/main.go.gz"]
    with pytest.raises(ValueError, match="no known language"):
        Config(input=["x"], kind="code", programming_languages=["Klingon"])


POSTS = """<?xml version="1.0" encoding="utf-8"?>
<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="3" CreationDate="2020-01-02T03:04:05" Score="7" REST />
  <row Id="2" PostTypeId="2" ParentId="1" Score="9" Body="&lt;p&gt;Wrong.&lt;/p&gt;" />
  <row Id="3" PostTypeId="2" ParentId="1" Score="4" Body="&lt;p&gt;Because.&lt;/p&gt;" ContentLicense="CC BY-SA 4.0" />
  <row Id="4" PostTypeId="1" Title="Open" Body="?" />
  <row Id="5" PostTypeId="1" AcceptedAnswerId="99" Title="Gone" Body="?" />
  <row Id="6" PostTypeId="1" AcceptedAnswerId="7" Title="Broken Body="?" />
  <row Id="7" PostTypeId="5" Body="a tag's wiki" />
  <row Id="8" PostTypeId="1" AcceptedAnswerId="9" Title="&bomb;" Body="?" />
</posts>
"""
POSTS = POSTS.replace("REST", 'Title="How &amp; why?" Body="BODY" Tags="TAGS" ContentLicense="CC BY-SA 3.0"')
POSTS = POSTS.replace("BODY", escape("<p>I ask:</p><pre><code>if x:\n    y()</code></pre>", {"\n": "&#xA;"}))
POSTS = POSTS.replace("TAGS", escape("<python><c++>"))


def test_questions_of_a_dump_come_with_their_accepted_answers(tmp_path):
    config = Config(input=["x"], kind="questions", source="qa", question_url="https://qa.test/q/{id}", date="2019")
    for name, data in (("Posts.xml", POSTS.encode()), ("Posts.xml.gz", gzip.compress(POSTS.encode()))):
        *rows, counts = rows_of(tmp_path, data, name, config)
        assert [(row["rule"], row["metadata"].get("own_id")) for row in rows] == [
            (None, None),
            ("no_accepted_answer", "4"),
            ("damaged", None),
            ("damaged", None),
            ("no_accepted_answer", "5"),
        ]
        row = rows[0]
        assert row["text"].split() == ["How", "&", "why?", "I", "ask:", "if", "x:", "y()", "Because."]
        assert "if x:\n    y()" in row["text"]
        assert (row["url"], row["date"], row["id"]) == (
            "https://qa.test/q/1",
            "2020-01-02T03:04:05",
            text_id("qa", "1", ""),
        )
        assert row["metadata"] == {
            "title": "How & why?",
            "tags": "python, c++",
            "score": "7",
            "answer_score": "4",
            "answer_id": "3",
            "licence": "CC BY-SA 4.0",
        }
        assert POSTS.encode()[row["offset"] : row["offset"] + row["length"]].strip().startswith(b'<row Id="1"')
        assert counts["metadata"] == {"captures": "3", "damaged": "2", "skipped": "0"}


def test_a_dump_that_means_harm(tmp_path):
    """Entities are not known on a line by itself, outer files not read, a line without end is passed over."""
    laughs = '<!DOCTYPE p [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>\n'
    row = '<row Id="{}" PostTypeId="1" AcceptedAnswerId="{}" Title="{}" Body="x" />\n'
    row += '<row Id="{}" PostTypeId="2" Body="y"/>\n'
    data = laughs + row.format(1, 2, "&b;", 2) + row.format(3, 4, "&f;", 4) + row.format(5, 6, "x" * 300_000, 6)
    data += row.format(7, 8, "good", 8) + row.format(9, 10, "&#0;", 10) + '<row Id="11" Body="' + "<b>" * 1000
    config = Config(input=["x"], kind="questions", line_bytes=200_000)
    *rows, _ = rows_of(tmp_path, data.encode(), "Posts.xml", config)
    assert [row["rule"] for row in rows] == ["damaged", "damaged", "damaged", None, "damaged", "damaged"]
    assert rows[3]["text"].split() == ["good", "x", "y"]


def test_questions_in_jsonl(tmp_path):
    records = [
        {"id": 1, "question": "Q?", "answers": ["no", "yes"], "accepted": 1, "license": "MIT"},
        {
            "question": {"title": "T", "body": "B"},
            "answers": [{"id": 5, "body": "no"}, {"id": 7, "body": "yes"}],
            "accepted": 7,
        },
        {"question": "Q2?", "answers": [{"text": "no"}, {"text": "yes", "accepted": True}]},
        {"question": "Q3?", "accepted": "yes"},
        {"question": "Q4?", "answers": ["no"]},
        {"question": "Q5?", "answers": [{"id": 1, "body": "no"}], "accepted": 0},
        {"answers": ["yes"], "accepted": 0},
        {"question": "Q6?", "answers": ["no"], "accepted": True},
        ["no object"],
    ]
    config = Config(input=["x"], kind="questions", source="qa")
    *rows, _ = rows_of(tmp_path, "\n".join(map(json.dumps, records)).encode() + b"\n{broken", config=config)
    missing = "no_accepted_answer"
    assert [row["rule"] for row in rows] == [None] * 4 + [missing, missing, "no_text", missing, "damaged", "damaged"]
    assert [row["text"] for row in rows[:4]] == ["Q?\n\nyes", "T\n\nB\n\nyes", "Q2?\n\nyes", "Q3?\n\nyes"]
    assert rows[0]["metadata"]["licence"] == "MIT"


def test_each_kind_refuses_what_it_does_not_read(tmp_path):
    (tmp_path / "x.jsonl").write_text("{}")
    for kind in ("text", "code"):
        with pytest.raises(UserError, match=f"ingest of {kind} reads"):
            input_files(Config(input=[f"{tmp_path}/x.jsonl"], kind=kind))
