"""Captures of equal contents in several files: extracted once, and the tables are those of extraction alone."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from dataeng import stage
from dataeng.recipe import Recipe
from spark_jobs import equal_captures, extract
from spark_jobs.session import Engine

pytestmark = pytest.mark.e2e
ENGINE = """
def extract(page, url):
    with open({log!r}, "a") as log:
        log.write("call\\n")
    return page.replace("<p>", " ").replace("<html>", "")
"""


def record(number, page, own_id=None, digest=None):
    """A capture of numbered contents; all have one address, which a user's engine may depend on."""
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><p>Contents " + str(page).encode() * 50
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{own_id or number}>\r\n"
    head += f"WARC-Payload-Digest: {digest}\r\n" if digest else ""
    head += f"WARC-Date: 2026-01-01T00:00:{number % 60:02d}Z\r\nWARC-Target-URI: http://example.org/\r\n"
    return f"{head}Content-Length: {len(block)}\r\n\r\n".encode() + block + b"\r\n\r\n"


def capture_files(folder):
    """30 contents in three files and containers. Returns how many distinct extractions they need."""
    wrong = {"digest": "sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    first = [record(n, n) for n in range(20)] + [record(20, 20, **wrong), record(21, 21, **wrong)]
    second = [record(100 + n, n) for n in range(5, 28)] + [record(150 + n, 7) for n in range(6)]
    third = [record(3, 3), record(200, 29, own_id=4), record(201, 5), record(202, 8)]
    members = [gzip.compress(text, mtime=0) for text in first]
    members[10] = members[10][:40] + bytes(byte ^ 0x5A for byte in members[10][40:60]) + members[10][60:]
    (folder / "a.warc.gz").write_bytes(b"".join(members))
    (folder / "b.warc").write_bytes(b"".join(second) + second[0][:90])
    (folder / "c.warc.zst").write_bytes(b"".join(zstandard.compress(text) for text in third))
    # Contents 0 to 27 (the damaged 10 stands in the second file as well) and 29. The id of content 4 occurs with
    # content 29, so neither is shared, but no other capture has them.
    return 29


def test_repeats_are_extracted_once_whatever_the_partitioning(tmp_path, spark, table_rows, monkeypatch):
    captures, log = tmp_path / "captures", tmp_path / "calls"
    captures.mkdir()
    distinct = capture_files(captures)
    module = tmp_path / "counting_engine.py"
    module.write_text(ENGINE.format(log=str(log)))
    monkeypatch.syspath_prepend(tmp_path)
    spark.sparkContext.addPyFile(str(module))
    found, runs = {}, [(False, 2, 1000), (True, 1, 1000), (True, 7, 1000), (True, 2, 2)]
    for number, (once, partitions, members) in enumerate(runs):
        monkeypatch.setattr(equal_captures, "MEMBERS", members)
        # Another bound, which decides nothing here, lets no worker remember the pages of an earlier run.
        config = {"input": [str(captures)], "engine": "counting_engine:extract", "once": once, "check_share": 0}
        tables = {"spark": {"partitions": partitions}, "extract": config | {"minimum_characters": 2 + number}}
        recipe = Recipe("r.toml", str(tmp_path / f"run-{number}"), 0, tables)
        log.write_text("")
        manifest = extract.step(Engine(recipe), recipe)
        assert stage.verify(recipe.root, "extract") == []
        found[once, partitions, members] = manifest
        calls = len(log.read_text().split())
        assert calls >= distinct
        if once and members > 2:
            assert calls == distinct
            assert manifest.details["repeats"] == manifest.counts["in"] - 2 - distinct
    assert {tuple((name, table.hash) for name, table in one.tables.items()) for one in found.values()} == {
        tuple((name, table.hash) for name, table in found[False, 2, 1000].tables.items())
    }
    counts = found[True, 7, 1000].dropped_by
    assert counts == {"damaged": 2, "duplicate_id": 2}
    assert found[True, 2, 2].details["repeats"] < found[True, 7, 1000].details["repeats"]
    texts = {row["text"] for row in table_rows(tmp_path / "run-2", "extract")}
    assert len(texts) == distinct - 1  # content 29 bears the id of content 4, which comes first
