"""Capture files become rows: each capture and each damage one row, each with its reason."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from difflib import SequenceMatcher

import pytest

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import capture_id, row_hash, to_batch
from dataeng.extract import Config
from dataeng.extract.captures import extract_file, input_entries, input_files
from dataeng.extract.limits import Failed, Limited
from dataeng.extract.page import work
from dataeng.filter import url as url_rule
from dataeng.recipe import Recipe
from dataeng.sources import mark_duplicates

PROSE = "This paragraph says something that a reader would want to keep, and says it at some length. " * 3
CONFIG = Config(input=["x"], source="test")


class Here(Limited):
    """The same work without a process; counts its calls."""

    calls = 0

    def call(self, *arguments):
        Here.calls += 1
        return work(*arguments)


def member(number, body, status="200 OK", kind="text/html", record_type="response", identified=True):
    http = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n".encode() + body
    own_id = f"WARC-Record-ID: <urn:uuid:{number}>\r\n" if identified else ""
    head = f"WARC/1.1\r\nWARC-Type: {record_type}\r\n{own_id}WARC-Date: 2026-01-02T03:04:05Z\r\n"
    head += f"WARC-Target-URI: http://example.org/{number}\r\nContent-Length: {len(http)}\r\n\r\n"
    return gzip.compress(head.encode() + http + b"\r\n\r\n", mtime=0)


def html(text=PROSE):
    return f"<html><head><title>T</title></head><body><article><p>{text}</p></article></body></html>".encode()


def rows_of(tmp_path, *members, worker=None, config=CONFIG):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(members))
    return list(extract_file(str(path), "below/x.warc.gz", config, worker or Here("unused")))


PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
CASES = [
    (member(0, html()), "kept", None),
    (member(1, html(), status="404 Not Found"), "dropped", "http_status"),
    (member(2, html(), status="204 No Content"), "dropped", "http_status"),
    (member(3, PNG, kind="image/png"), "dropped", "content_type"),
    (member(4, PNG), "dropped", "content_type"),
    (member(5, bytes(range(256)) * 20), "dropped", "content_type"),
    (member(6, b'{"a": 1}', kind="application/json"), "dropped", "content_type"),
    (member(7, b""), "dropped", "empty"),
    (member(8, b"  \n "), "dropped", "empty"),
    (member(9, html().decode().encode("utf-16")), "kept", None),
    (member(10, b" " * (9 << 20)), "dropped", "too_large"),
]


@pytest.mark.parametrize(("data", "table", "rule"), CASES)
def test_verdicts(tmp_path, data, table, rule):
    row, counts = rows_of(tmp_path, data)
    assert (row["table"], row["rule"]) == (table, rule)
    assert counts["metadata"] == {"captures": "1", "damaged": "0", "skipped": "0"}


GERMAN = "Die Mühle steht am Bach, und das Wasser treibt ihr großes Rad an, solange es nicht gefroren ist. " * 4


def test_addresses_that_rules_block_are_dropped_unread(tmp_path):
    (tmp_path / "list").write_text("example.org/1\n")
    config = CONFIG.model_copy(update={"url": url_rule.Config(lists=[str(tmp_path / "list")])})
    before = Here.calls
    kept, dropped, _ = rows_of(tmp_path, member(0, html()), member(1, html("Not read. " + PROSE)), config=config)
    assert (kept["table"], dropped["table"], dropped["rule"]) == ("kept", "dropped", "url.page")
    assert (dropped["score"], dropped["threshold"], dropped["bound"]) == (1.0, 0.0, "max")
    assert dict(dropped["metadata"])["url_blocked"] == "page example.org/1"
    assert Here.calls - before <= 1
    assert str(tmp_path / "list") in config.files()


def test_pages_surely_in_other_languages_are_dropped_before_extraction(tmp_path):
    config = CONFIG.model_copy(update={"languages": ["en"]})
    mixed = f"<p>{GERMAN}</p><p>{GERMAN}</p><p>{PROSE * 2}</p>".encode()
    pages = [html(), html(GERMAN), b"<html><body>" + mixed + b"</body></html>", html("Kurz und deutsch, aber kurz.")]
    english, german, both, short, _ = rows_of(tmp_path, *map(member, range(4), pages), config=config)
    assert [row["table"] for row in (english, german, both, short)] == ["kept", "dropped", "kept", "kept"]
    assert (german["rule"], german["bound"], german["threshold"]) == ("language_guess", "min", config.language_least)
    assert 0 <= german["score"] < config.language_least


def test_languages_are_named_as_the_model_knows_them(tmp_path):
    norwegian = "Mølla står ved elva, og vannet driver det store hjulet så lenge det ikke er frosset til is. " * 4
    config = CONFIG.model_copy(update={"languages": ["nb"]})
    assert [row["table"] for row in rows_of(tmp_path, member(0, html(norwegian)), config=config)][:1] == ["kept"]
    assert config.files() == [config.model_path()] != [""]
    assert CONFIG.files() == []


def test_a_row_has_its_provenance(tmp_path):
    first, second = member(0, html()), member(1, html("Another one. " + PROSE), identified=False)
    row, other, _ = rows_of(tmp_path, first, second)
    assert row["id"] == capture_id("<urn:uuid:0>", "", 0)
    assert other["id"] == capture_id(None, "below/x.warc.gz", len(first))
    assert (other["file"], other["offset"], other["length"]) == ("below/x.warc.gz", len(first), len(second))
    assert (row["url"], row["date"], row["source"]) == ("http://example.org/0", "2026-01-02T03:04:05Z", "test")
    assert row["row_hash"] == row_hash(row)
    assert row["metadata"]["title"] == "T"


def test_every_record_is_accounted_for(tmp_path):
    broken = bytearray(member(2, html()))
    broken[40] ^= 255
    rows = rows_of(tmp_path, member(0, b"", record_type="request"), member(1, html()), bytes(broken), member(3, html()))
    tables = Counter((row["table"], row["rule"]) for row in rows)
    assert tables == {("kept", None): 2, ("dropped", "damaged"): 1, ("captures", None): 1}
    assert rows[-1]["metadata"] == {"captures": "2", "damaged": "1", "skipped": "1"}
    damaged = next(row for row in rows if row["rule"] == "damaged")
    assert (damaged["text"], damaged["length"]) == (None, len(broken))


@pytest.mark.parametrize("reason", ["timeout", "memory", "crash"])
def test_a_page_that_hits_a_limit_is_dropped_and_the_next_is_not(tmp_path, reason):
    class Limit(Here):
        def call(self, *arguments):
            if b"hang" in arguments[0].body:
                raise Failed(reason)
            return super().call(*arguments)

    rows = rows_of(tmp_path, member(0, html("hang " + reason)), member(1, html()), worker=Limit("unused"))
    assert [(row["table"], row["rule"]) for row in rows[:2]] == [("dropped", reason), ("kept", None)]
    assert reason in stage.NONDETERMINISTIC


def test_equal_pages_are_extracted_once(tmp_path):
    Here.calls = 0
    rows = rows_of(tmp_path, *(member(n, html("Only in this test. " + PROSE)) for n in range(5)))
    assert Here.calls == 1
    assert len({row["text"] for row in rows[:5]}) == 1


def test_the_real_worker_gives_the_same_rows(tmp_path):
    worker = Limited("dataeng.extract.page:work")
    data = [member(n, html(f"{n} {PROSE}")) for n in range(3)]
    assert rows_of(tmp_path, *data, worker=worker) == rows_of(tmp_path, *data)
    worker.stop()


@pytest.mark.parametrize("size", [1, 2, 100])
def test_equal_ids_leave_one_row(tmp_path, size):
    rows = rows_of(tmp_path, member(0, html()), member(0, html("Second. " + PROSE)), member(1, html()), member(0, b""))
    rows.sort(key=lambda row: (row["id"], row["file"], row["offset"] or 0))
    batches = (to_batch(rows[start : start + size]) for start in range(0, len(rows), size))
    out = [row for batch in mark_duplicates(batches, "extract") for row in batch.to_pylist(maps_as_pydicts="strict")]
    assert Counter(row["rule"] for row in out) == {None: 3, "duplicate_id": 2}
    assert [row["offset"] for row in out] == [row["offset"] for row in rows]
    assert all(row["row_hash"] == row_hash(row) for row in out)
    kept = {row["id"]: row["offset"] for row in out if row["table"] == "kept"}
    assert kept[capture_id("<urn:uuid:0>", "", 0)] == 0


def recipe(tmp_path, *inputs):
    return Recipe("r.toml", str(tmp_path / "run"), 0, {"extract": {"input": list(inputs)}})


def files_of(made):
    return input_files(made, made.step("extract"))


def test_a_file_named_twice_is_read_once(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.warc.gz").write_bytes(member(0, html()))
    (tmp_path / "in" / "notes.txt").write_text("not a capture")
    made = recipe(tmp_path, f"{tmp_path}/in", f"{tmp_path}/in/*.warc.gz", f"{tmp_path}/in/a.warc.gz")
    found = files_of(made)
    assert [file["file"] for file in found] == ["a.warc.gz"]
    entries = input_entries(made, made.step("extract"), found)
    assert [set(entry) for entry in entries] == [{"path", "size", "tag"}]


def test_inputs_that_cannot_be_read_are_user_errors(tmp_path):
    for folder in ("one", "two", "empty"):
        (tmp_path / folder).mkdir()
    for path in ("one/a.warc", "two/a.warc"):
        (tmp_path / path).write_bytes(b"x")
    (tmp_path / "none.warc").write_bytes(b"")
    for inputs, message in (
        ([f"{tmp_path}/missing"], "nothing there to read"),
        ([f"{tmp_path}/empty"], "nothing there to read"),
        ([f"{tmp_path}/one", f"{tmp_path}/two"], "would both be called a.warc"),
        ([f"{tmp_path}/none.warc"], "nothing but empty files"),
    ):
        with pytest.raises(UserError, match=message):
            files_of(recipe(tmp_path, *inputs))


def test_pages_in_other_encodings_read_as_their_twins(data_dir):
    folder = data_dir / "crawl-a"
    with gzip.open(folder / "labels.jsonl.gz", "rt") as lines:
        labels = [json.loads(line) for line in lines]
    encoded = [label for label in labels if label["kind"] == "encoding"]
    places = {label["url"]: label for label in labels if label["kind"] == "page"}
    wanted = {(label["file"], label["offset"]) for label in encoded}
    wanted |= {(places[label["utf8_of"]]["file"], places[label["utf8_of"]]["offset"]) for label in encoded}
    texts = {}
    for path in sorted(folder.glob("*.warc.gz")):
        data = path.read_bytes()
        for file, offset in sorted(wanted):
            if file == path.name:
                length = next(lb["length"] for lb in labels if (lb["file"], lb["offset"]) == (file, offset))
                texts[file, offset] = _text(data[offset : offset + length])
    assert len(encoded) == 16
    for label in encoded:
        twin = places[label["utf8_of"]]
        one, other = texts[label["file"], label["offset"]], texts[twin["file"], twin["offset"]]
        assert (
            SequenceMatcher(None, one, other, autojunk=False).ratio() >= 0.999 if len(one) < 5000 else _near(one, other)
        )


def _near(one, other):
    """The ratio of texts too long for difflib: by lines, and by characters within the lines that differ."""
    pairs = list(zip(one.split("\n"), other.split("\n"), strict=True))
    same = sum(SequenceMatcher(None, a, b, autojunk=False).ratio() * (len(a) + len(b)) for a, b in pairs)
    return same / max(1, sum(len(a) + len(b) for a, b in pairs)) >= 0.999


def _text(data):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return rows_of(Path(folder), data)[0]["text"]


def wet(number, text, kind="text/plain"):
    head = f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:wet-{number}>\r\n"
    head += f"WARC-Target-URI: http://example.org/{number}\r\nWARC-Identified-Content-Language: eng\r\n"
    head += f"Content-Type: {kind}\r\nContent-Length: {len(text.encode())}\r\n\r\n"
    return gzip.compress(head.encode() + text.encode() + b"\r\n\r\n", mtime=0)


def test_text_of_wet_files_becomes_documents_as_it_stands(tmp_path):
    first, short, other, counts = rows_of(
        tmp_path, wet(0, f"Menü\n\n{PROSE}"), wet(1, "short"), wet(2, PROSE, "application/json")
    )
    assert first["text"] == f"Menü\n\n{PROSE.strip()}"
    assert (first["metadata"]["extract_path"], first["metadata"]["identified_language"]) == ("wet", "eng")
    assert (short["rule"], other["rule"]) == ("empty", "content_type")
    assert counts["metadata"]["captures"] == "3"


def test_revisits_are_counted_as_skipped(tmp_path):
    rows = rows_of(tmp_path, member(0, b"", record_type="revisit"), member(1, html()))
    assert rows[-1]["metadata"]["skipped"] == "1"
    assert len(rows) == 2


def test_damage_and_record_of_one_member_have_ids_of_their_own(tmp_path):
    text = gzip.decompress(member(0, html(), identified=False))
    damaged, found, _ = rows_of(tmp_path, gzip.compress(b"no record\r\n\r\n" + text))
    assert (damaged["rule"], found["rule"]) == ("damaged", None)
    assert damaged["offset"] == found["offset"] == 0
    assert damaged["id"] != found["id"]
