"""Captures of equal contents: what counts as equal, and the rows of those that were not extracted themselves."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dataeng.cli import Conflict
from dataeng.document import ROW, to_batch
from dataeng.extract import Config
from dataeng.extract.captures import Part, extract_file
from dataeng.extract.limits import Limited
from dataeng.extract.page import work
from dataeng.extract.repeats import PARTED, fill, look

CONFIG = Config(input=["x"], source="test", check_share=0, content_types=["text/html", "text/plain"])
PROSE = b"<html><title>T</title><p>This paragraph says something that a reader wants to keep, at some length.</html>"


class Here(Limited):
    """The same work without a process."""

    def call(self, *arguments):
        return work(*arguments)


def record(number, body, kind="text/html", record_type="response", **headers):
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    if record_type == "response":
        body = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode() + body
    else:
        more += f"Content-Type: {kind}\r\n"
    head = f"WARC/1.1\r\nWARC-Type: {record_type}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n{more}"
    head += f"WARC-Target-URI: http://example.org/{number}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


def write(tmp_path, *records):
    path = tmp_path / "x.warc"
    path.write_bytes(b"".join(records))
    return str(path), "x.warc", CONFIG


def keys_of(tmp_path, *records):
    return [row["key"] for row in look(*write(tmp_path, *records))]


def test_contents_and_charset_make_the_key_and_no_named_digest_does(tmp_path):
    other = PROSE.replace(b"reader", b"writer")
    named = {"WARC_Payload_Digest": "sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    one, same, wrong, changed, charset, image = keys_of(
        tmp_path,
        record(1, PROSE),
        record(2, PROSE, WARC_Payload_Digest="sha1:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"),
        record(3, PROSE, **named),
        record(4, other, **named),
        record(5, PROSE, kind="text/html; charset=koi8-r"),
        record(6, PROSE, kind="image/png"),
    )
    assert one == same == wrong
    assert len({one, changed, charset}) == 3
    assert image is None


def test_text_of_wet_files_and_pages_of_equal_bytes_are_kept_apart(tmp_path):
    wet, page = keys_of(
        tmp_path,
        record(1, b"Plain text of some length, for both.", "text/plain", "conversion"),
        record(2, b"Plain text of some length, for both.", "text/plain; charset=utf-8"),
    )
    assert wet != page


def test_pages_to_be_compared_with_plain_trafilatura_share_nothing(tmp_path):
    path, name, config = write(tmp_path, record(1, PROSE), record(2, PROSE))
    assert [row["key"] for row in look(path, name, config.model_copy(update={"check_share": 1}))] == [None, None]


RECORDS = (
    record(1, PROSE, WARC_Date="2026-01-01T00:00:00Z"),
    record(2, PROSE, WARC_Date="2026-01-02T00:00:00Z", WARC_Payload_Digest="sha1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    record(3, b"<html><p>short</html>"),
    record(4, b"<html><p>short</html>"),
    record(5, b"Plain text of some length, for both.", "text/plain", "conversion"),
    record(6, b"Plain text of some length, for both.", "text/plain", "conversion",
           WARC_Identified_Content_Language="eng"),
)  # fmt: skip


def parted(tmp_path, leaders=(True, False)):
    """Rows as the grouping hands them over: each route's leader first, and the rows of extraction alone."""
    file = write(tmp_path, *RECORDS)
    alone = list(extract_file(*file, worker=Here("unused")))
    places = [(row["offset"], row["index"]) for row in look(*file)]
    shared = {place: Part(f"r{number // 2}", leaders[number % 2]) for number, place in enumerate(places)}
    rows = [{"route": row["id"], "leads": None} | row for row in extract_file(*file, Here("unused"), shared)]
    rows.sort(key=lambda row: (row["leads"] is None, row["route"], not row["leads"]))
    return alone, rows


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("leaders", [(True, False), (False, True)])
def test_a_row_that_waited_is_the_one_that_extraction_alone_gives(tmp_path, leaders, size):
    alone, rows = parted(tmp_path, leaders)
    assert sum(row["leads"] is False for row in rows) == 3
    batches = [to_batch(rows[n : n + size], PARTED) for n in range(0, len(rows), size)]
    filled = pa.Table.from_batches(fill(batches), ROW).to_pylist(maps_as_pydicts="strict")
    assert {row["table"] for row in alone} == {"kept", "dropped", "captures"}
    assert sorted(filled, key=lambda row: row["id"]) == sorted(alone, key=lambda row: row["id"])


def test_a_missing_leader_is_told(tmp_path):
    _, rows = parted(tmp_path)
    with pytest.raises(Conflict, match="replaced meanwhile"):
        list(fill([to_batch([row for row in rows if not row["leads"]], PARTED)]))
