"""What a capture carries: the HTTP message taken apart, its body decoded under a bound."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brotli
import zstandard

from dataeng.warc import Capture, agrees

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_LONGEST_HEAD = 256 << 10
_MOST_CHUNKS = 200_000  # of one body
_ZSTD_WINDOW = 8 << 20  # bytes, https://www.rfc-editor.org/rfc/rfc9659
_PIECE = 1 << 20  # bytes that a decompressor gives at once
_MOST_CODINGS = 3  # Content-Encoding: gzip, gzip, gzip, … is an attack


class TooLarge(Exception):
    """A body would be larger, decoded, than its bound."""


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP answer: status (200 for a resource record), headers (lower case), body as sent."""

    status: int | None
    headers: dict[str, str]
    body: bytes

    @property
    def content_type(self) -> str | None:
        """The media type alone, in lower case; None where the server named none."""
        value = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return value or None


def message_of(capture: Capture) -> Message:
    """The HTTP message of a response record, or a resource record's block as if it had been served.

    A response that is no HTTP message (such as dns:) has status None and the record's own content type.
    """
    own = {"content-type": capture.headers.get("content-type", "")}
    if capture.type == "resource":
        return Message(200, own, capture.block)
    found = _STATUS.match(capture.block)
    if not found:
        return Message(None, own, capture.block)
    blank = _BLANK_LINE.search(capture.block, 0, _LONGEST_HEAD)
    head_end = blank.start() if blank else len(capture.block)
    headers: dict[str, str] = {}
    for line in capture.block[:head_end].decode("latin-1").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return Message(int(found[1]), headers, capture.block[blank.end() :] if blank else b"")


def _dechunk(body: bytes, most: int) -> bytes:
    """A chunked body put together. Many archives store it put together already: then it is left alone.

    Where a chunk's length is wrong, all that follows is taken as it stands. Raises TooLarge past ``most``
    bytes or past the number of chunks that a server would send for them.
    """
    whole, position, count = bytearray(), 0, 0
    while found := _CHUNK_SIZE.match(body, position):
        size, count = int(found[1], 16), count + 1
        whole += body[found.end() : found.end() + size]
        position = found.end() + size
        if size == 0:
            return bytes(whole)
        if len(whole) > most or count > _MOST_CHUNKS:
            raise TooLarge
        if body[position : position + 2] == b"\r\n":
            position += 2
        elif body[position : position + 1] == b"\n":
            position += 1
    return bytes(whole + body[position:])


def _bounded(read: Callable[[], bytes], most: int, damage: type[Exception]) -> bytes:
    """What ``read`` gives until it gives nothing or meets damage; raises TooLarge, or damage at the very start."""
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            part = read()
        except damage:
            if not size:
                raise
            break
        if not part:
            break
        size += len(part)
        if size > most:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def _inflate(body: bytes, most: int, window_bits: int) -> bytes:
    """What zlib gets out of a body, also of one cut short; raises TooLarge, or zlib.error at its very start."""
    inflater, pending = zlib.decompressobj(window_bits), body

    def read() -> bytes:
        nonlocal pending
        part = inflater.decompress(pending, _PIECE) if pending and not inflater.eof else b""
        pending = inflater.unconsumed_tail
        return part

    return _bounded(read, most, zlib.error)


def _gunzip(body: bytes, most: int) -> bytes:
    return _inflate(body, most, 31)


def _undeflate(body: bytes, most: int) -> bytes:
    try:
        return _inflate(body, most, 15)
    except zlib.error:
        return _inflate(body, most, -15)  # many servers send raw deflate


def _unbrotli(body: bytes, most: int) -> bytes:
    decoder: Any = brotli.Decompressor()
    data: bytes = decoder.process(body, output_buffer_limit=most + 1)
    if len(data) > most:
        raise TooLarge
    return data


def _unzstd(body: bytes, most: int) -> bytes:
    """What zstd gets out of a body, also of one cut short; raises ZstdError at its very start."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    with decompressor.stream_reader(body, read_across_frames=True) as reader:
        return _bounded(lambda: reader.read(_PIECE), most, zstandard.ZstdError)


_CODINGS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}


def body_of(message: Message, most: int) -> bytes:
    """The body without transfer and content codings; raises TooLarge past ``most`` bytes.

    A body that does not carry the coding its headers name (archives store many decoded) is left alone.
    """
    body = message.body
    if "chunked" in message.headers.get("transfer-encoding", "").lower():
        body = _dechunk(body, most)
    codings = [name.strip().lower() for name in message.headers.get("content-encoding", "").split(",")]
    for name in reversed(codings[:_MOST_CODINGS]):
        if decode := _CODINGS.get(name):
            try:
                body = decode(body, most)
            except (zlib.error, brotli.error, zstandard.ZstdError):
                break
    if len(body) > most:
        raise TooLarge
    return body


def payload_digest(capture: Capture, message: Message) -> dict[str, str]:
    """The payload's SHA-1 as WARC writes it; ``payload_digest_named`` as well where the record names another one.

    The payload is the body without its transfer coding; writers that hash it with that coding are right as well.
    """
    named = capture.headers.get("warc-payload-digest")
    if agrees(named, message.body):
        return {"payload_digest": str(named)}
    body = message.body
    if "chunked" in message.headers.get("transfer-encoding", "").lower():
        try:
            body = _dechunk(body, len(body))
        except TooLarge:
            return {}
    found = base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()
    right = agrees(named, body)
    if right:
        return {"payload_digest": str(named)}
    return {"payload_digest": f"sha1:{found}"} | ({"payload_digest_named": str(named)} if right is False else {})
