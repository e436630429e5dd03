"""HTTP bodies are decoded under a bound, and left alone where their headers lie."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dataeng.extract.payload import Message, TooLarge, body_of, message_of, payload_digest
from dataeng.warc import Capture


def message(body: bytes, **headers: str) -> Message:
    return Message(200, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def capture(block: bytes, kind: str = "response") -> Capture:
    return Capture("f", 0, 1, kind, {"content-type": "text/html"}, block)


CODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "x-gzip": gzip.compress}


@pytest.mark.parametrize(("name", "encode"), CODERS.items())
def test_codings_are_undone(name, encode):
    body = b"<p>hello</p>" * 50
    assert body_of(message(encode(body), content_encoding=name), 10_000) == body
    assert (
        body_of(message(chunked(encode(body), 7), content_encoding=name, transfer_encoding="chunked"), 10_000) == body
    )


def test_raw_deflate_is_undone():
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(b"<p>hello</p>") + packer.flush()
    assert body_of(message(body, content_encoding="deflate"), 1000) == b"<p>hello</p>"


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_bombs_are_refused(name):
    with pytest.raises(TooLarge):
        body_of(message(CODERS[name](bytes(5_000_000)), content_encoding=name), 100_000)


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "nonsense"])
def test_a_body_that_is_plain_already_is_left_alone(name):
    body = b"<html>plain</html>"
    assert body_of(message(body, content_encoding=name, transfer_encoding="chunked"), 1000) == body


def test_a_gzip_body_cut_short_gives_what_there_is():
    whole = b"".join(b"line %d\n" % n for n in range(5000))
    packed = gzip.compress(whole)
    found = body_of(message(packed[: len(packed) // 2], content_encoding="gzip"), 1 << 20)
    assert whole.startswith(found)
    assert len(found) > 1000


@given(st.binary(max_size=300), st.integers(1, 50))
def test_chunks_are_put_together(body, size):
    assert body_of(message(chunked(body, size), transfer_encoding="chunked"), 10_000) == body


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "gzip, br"]))
def test_nothing_raises_but_too_large(body, coding):
    body_of(message(body, content_encoding=coding, transfer_encoding="chunked"), 1 << 20)


def test_messages_are_taken_apart():
    found = message_of(capture(b"HTTP/1.1 404 Not Found\r\nContent-Type: Text/HTML; charset=x\r\nA: b\r\n\r\nbody"))
    assert (found.status, found.content_type, found.body) == (404, "text/html", b"body")
    assert message_of(capture(b"HTTP/2 200\nContent-Type: text/html\n\nbody")).body == b"body"
    assert message_of(capture(b"20260101 dns answer")).status is None
    assert message_of(capture(b"HTTP/1.1 200 OK\r\nno end of head")).body == b""
    assert message_of(capture(b"<p>", "resource")) == Message(200, {"content-type": "text/html"}, b"<p>")


def test_zstd_is_undone_under_its_bound_also_when_cut_short():
    whole = b"".join(b"line %d\n" % n for n in range(50_000))
    packed = zstandard.compress(whole)
    assert body_of(message(packed, content_encoding="zstd"), 1 << 20) == whole
    found = body_of(message(packed[: len(packed) * 3 // 4], content_encoding="zstd"), 1 << 20)
    assert whole.startswith(found)
    with pytest.raises(TooLarge):
        body_of(message(zstandard.compress(bytes(5_000_000)), content_encoding="zstd"), 100_000)


@pytest.mark.parametrize("second", ["gzip", "deflate", "br"])
def test_two_codings_are_undone_in_turn(second):
    body = CODERS[second](gzip.compress(b"<p>hello</p>"))
    assert body_of(message(body, content_encoding=f"gzip, {second}"), 1000) == b"<p>hello</p>"


@pytest.mark.parametrize("claimed", [b"1", b"ff", b"fffffff"])
def test_a_wrong_chunk_length_loses_no_byte_behind_it(claimed):
    body = claimed + b"\r\n<p>hello</p>\r\n0\r\n\r\n"
    assert body_of(message(body, transfer_encoding="chunked"), 1000).startswith(b"<")


def test_more_chunks_than_a_server_would_send_are_refused():
    with pytest.raises(TooLarge):
        body_of(message(b"1\na" * 250_000, transfer_encoding="chunked"), 8 << 20)


def test_payload_digests_are_computed_and_compared():
    body = b"<p>hello</p>"
    right = "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode()
    for named, sent, found in (
        (None, message(body), {"payload_digest": right}),
        (right, message(body), {"payload_digest": right}),
        (right, message(chunked(body, 5), transfer_encoding="chunked"), {"payload_digest": right}),
        ("sha1:" + "A" * 32, message(body), {"payload_digest": right, "payload_digest_named": "sha1:" + "A" * 32}),
    ):
        held = Capture("f", 0, 1, "response", {"warc-payload-digest": named} if named else {}, b"")
        assert payload_digest(held, sent) == found
