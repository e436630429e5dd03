"""Hostile pages through the real worker: each ends within its limits, and its neighbours are unharmed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import brotli
import pytest
import zstandard

from dataeng.extract import Config
from dataeng.extract.captures import extract_file
from dataeng.extract.limits import Limited

PROSE = "This paragraph says something that a reader would want to keep, and says it at some length. " * 3
CONFIG = Config(input=["x"], record_bytes=1 << 20, page_bytes=1 << 19)


def member(number: int, body: bytes, headers: bytes = b"Content-Type: text/html\r\n", url: bytes = b"") -> bytes:
    http = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:%d>\r\n" % number
    head += b"WARC-Target-URI: http://example.org/%d%s\r\nContent-Length: %d\r\n\r\n" % (number, url, len(http))
    return gzip.compress(head + http + b"\r\n\r\n", mtime=0)


def html(text: str) -> bytes:
    return f"<html><head><title>T</title></head><body><article><p>{text}</p></article></body></html>".encode()


def coded(name: bytes) -> bytes:
    return b"Content-Type: text/html\r\nContent-Encoding: " + name + b"\r\n"


LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a "ha">%s]><html xmlns="http://www.w3.org/1999/xhtml">
<body><p>&z;</p></body></html>""" % b"".join(
    b'<!ENTITY %c "%s">' % (letter, b"&%c;" % (letter - 1) * 10) for letter in range(ord("b"), ord("z") + 1)
)
CASES: dict[str, tuple[bytes, set[str | None]]] = {
    "one long line, past a record's bound": (member(1, b"<p>" + b"word " * 400_000), {"damaged"}),
    "one long line, past a page's bound": (member(1, b"<p>" + b"word " * 150_000), {"too_large"}),
    "nested tags": (member(1, b"<div>" * 100_000 + b"deep"), {"too_large", "too_deep", "empty"}),
    "fewer nested tags": (member(1, b"<div>" * 20_000 + b"deep"), {"too_deep", "too_large", "empty"}),
    "gzip bomb": (member(1, gzip.compress(bytes(50_000_000)), coded(b"gzip")), {"too_large"}),
    "gzip bomb in gzip": (
        member(1, gzip.compress(gzip.compress(bytes(50_000_000))), coded(b"gzip, gzip")),
        {"too_large"},
    ),
    "brotli bomb": (member(1, brotli.compress(bytes(5_000_000), quality=1), coded(b"br")), {"too_large"}),
    "zstd bomb": (member(1, zstandard.compress(bytes(50_000_000)), coded(b"zstd")), {"too_large"}),
    "endless chunks": (
        member(1, b"1\r\na\r\n" * 150_000, b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"),
        {None, "empty"},
    ),
    "tiny chunks without end": (
        member(1, b"1\na" * 340_000, b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n"),
        {"too_large"},
    ),
    "many openings for patterns": (
        member(1, b"<p>" + b"<a href='" * 20_000 + b"=" * 20_000 + b"<meta " * 5000 + b"charset " * 5000),
        {None, "empty", "too_large"},
    ),
    "bytes that are no UTF-8 in headers": (
        member(1, html(PROSE), b"Content-Type: text/html; charset=\xff\xfe\r\nX-\xff: \xc3\x28\r\n", b"/\xff\xc3"),
        {None},
    ),
    "a URL of a megabyte": (member(1, html(PROSE), url=b"/" + b"a" * 1_000_000), {None, "damaged"}),
    "billion laughs": (member(1, LAUGHS, b"Content-Type: application/xhtml+xml\r\n"), {None, "empty"}),
    "NUL bytes": (member(1, html(PROSE).replace(b"s", b"s\0")), {None, "content_type"}),
    "entities without end": (member(1, b"<p>" + b"&#x1F600;&lt;" * 30_000), {None, "empty"}),
}


def rows_of(tmp_path, *members: bytes, worker: Limited) -> list[dict]:
    path = tmp_path / "x.warc.gz"
    path.write_bytes(b"".join(members))
    return list(extract_file(str(path), "x.warc.gz", CONFIG, worker))


@pytest.fixture(scope="module")
def worker():
    made = Limited("dataeng.extract.page:work", seconds=20, memory_bytes=2 << 30)
    yield made
    made.stop()


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_page_gets_its_rule_and_its_neighbours_their_text(tmp_path, worker, name):
    data, rules = CASES[name]
    before, found, after, counts = rows_of(
        tmp_path, member(0, html("Before. " + PROSE)), data, member(2, html("After. " + PROSE)), worker=worker
    )
    assert (before["table"], after["table"]) == ("kept", "kept")
    assert (before["text"], after["text"]) == ("Before. " + PROSE.strip(), "After. " + PROSE.strip())
    assert found["rule"] in rules
    assert len(found["text"] or "") < CONFIG.page_bytes
    assert counts["table"] == "captures"


def test_a_page_that_ends_the_native_parser_is_dropped_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    made = Limited("hostile:work_but_abort", seconds=20, memory_bytes=2 << 30)
    pages = [member(n, html(("abort here " if n == 1 else "") + f"{n} in this test. {PROSE}")) for n in range(3)]
    rows = rows_of(tmp_path, *pages, worker=made)
    made.stop()
    assert [(row["table"], row["rule"]) for row in rows[:3]] == [("kept", None), ("dropped", "crash"), ("kept", None)]


def test_the_memory_of_the_reader_does_not_follow_what_a_length_claims(tmp_path):
    claims = b"WARC/1.1\r\nWARC-Type: response\r\nContent-Length: 99999999999\r\n\r\n"
    path = tmp_path / "x.warc.gz"
    path.write_bytes(gzip.compress(claims + bytes(200_000_000), 1) + member(1, html(PROSE)))
    before = _resident()
    rows = list(extract_file(str(path), "x.warc.gz", CONFIG, Limited("dataeng.extract.page:work")))
    assert [row["rule"] for row in rows] == ["damaged", None, None]
    assert _resident() - before < 100 << 20


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
