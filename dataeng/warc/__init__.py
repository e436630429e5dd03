"""WARC captures read as a stream that survives damage: no record whose own bytes are intact is lost.

WARC/1.0 and 1.1 (ISO 28500), plain or with gzip members. FastWARC, warcio and datatrove give up at the
first bad member; here reading goes on at the next member that inflates to a WARC header, and each
region passed over is reported with its place. Memory is bounded by ``LARGEST_RECORD`` whatever a
length field claims. Other containers (ARC, zstd) are reported as one damaged region.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from dataeng import storage

LARGEST_RECORD = 64 << 20  # bytes of one record, inflated
LONGEST_HEADER = 64 << 10  # bytes of a record's header
CAPTURES = ("response", "resource")
_CHUNK = 1 << 20
_FEED = 16 << 10  # bytes handed to zlib at once: small, since what lies behind a member's end is copied
_MAGIC = b"\x1f\x8b\x08"
_VERSION = re.compile(rb"WARC/[01]\.\d+[ \t]*\r?\n")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_NEXT_RECORD = re.compile(rb"\n(?=WARC/[01]\.\d+[ \t]*\r?\n)")


@dataclass(frozen=True, slots=True)
class Capture:
    """A response or resource record. ``offset`` and ``length`` are bytes in the file (compressed ones).

    ``index`` counts the records of one gzip member; ``headers`` have lower-case names; ``block`` is the
    record's content as stored (for a response the HTTP message).
    """

    file: str
    offset: int
    length: int
    type: str
    headers: dict[str, str]
    block: bytes = field(repr=False)
    index: int = 0

    @property
    def record_id(self) -> str | None:
        """WARC-Record-ID, with its angle brackets."""
        return self.headers.get("warc-record-id")

    @property
    def url(self) -> str | None:
        """WARC-Target-URI without the angle brackets that old writers put around it."""
        target = self.headers.get("warc-target-uri")
        return target.strip().removeprefix("<").removesuffix(">") if target else None

    @property
    def date(self) -> str | None:
        """WARC-Date (ISO 8601, UTC)."""
        return self.headers.get("warc-date")


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes passed over: not readable as a record (``bytes``), cut short by the file's end, or too long."""

    file: str
    offset: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A whole record of another type (request, warcinfo, metadata, revisit …)."""

    file: str
    offset: int
    length: int
    type: str
    index: int = 0


Item = Capture | Damage | Skipped


class _Window:
    """Random access to a file by large reads; going on is cheap, going back opens it again."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.path, self.stack = path, stack
        self.start, self.data = 0, b""
        found = storage.stat(path)
        if found is None:
            raise FileNotFoundError(path)
        self.size = found.size
        self.stream = stack.enter_context(storage.open_stream(path))

    def at(self, offset: int, least: int = 1) -> memoryview:
        """The bytes from ``offset`` on: at least ``least`` of them unless the file ends before."""
        if offset >= self.size:
            return memoryview(b"")
        end = self.start + len(self.data)
        if not self.start <= offset <= end:
            self.stack.close()
            self.stream = self.stack.enter_context(storage.open_stream(self.path, offset))
            self.start, self.data = offset, b""
        if self.start + len(self.data) - offset < least:
            parts = [self.data[offset - self.start :]]
            wanted = max(least - len(parts[0]), _CHUNK)
            while wanted > 0 and (part := self.stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
            self.start, self.data = offset, b"".join(parts)
        return memoryview(self.data)[offset - self.start :]


@dataclass(slots=True)
class _Record:
    headers: dict[str, str]
    content: int  # where the block begins in the text that the header was read from
    length: int | None  # Content-Length, None where it is missing or no number


def _header(data: bytes, start: int) -> _Record | None:
    """The record header that begins at ``start``, or None where there is none that ends in time."""
    version = _VERSION.match(data, start)
    if not version:
        return None
    blank = _BLANK_LINE.search(data, version.end() - 2, start + LONGEST_HEADER)
    if not blank:
        return None
    headers: dict[str, str] = {}
    name = ""
    for line in data[version.end() : max(blank.start(), version.end())].decode("utf-8", "replace").splitlines():
        if line[:1] in " \t" and name:
            headers[name] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            headers.setdefault(name, value.strip())
    length = headers.get("content-length", "")
    known = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    return _Record(headers, blank.end(), known)


def _item(file: str, offset: int, length: int, headers: dict[str, str], block: bytes, index: int = 0) -> Item:
    kind = headers.get("warc-type", "").lower()
    if kind in CAPTURES:
        return Capture(file, offset, length, kind, headers, block, index)
    return Skipped(file, offset, length, kind, index)


def _block_end(data: bytes, record: _Record) -> int:
    """Where a record's block ends in a whole gzip member: Content-Length where it fits what follows.

    The member's checksum held, so the bytes are the writer's; a length that leads nowhere is its mistake.
    """
    if record.length is not None and (end := record.content + record.length) <= len(data):
        rest = data[end : end + 64].lstrip(b"\r\n")
        if _VERSION.match(rest) or not data[end:].strip(b"\r\n\0"):
            return end
    following = _NEXT_RECORD.search(data, record.content)
    end = following.end() if following else len(data)
    for _ in range(2):
        end -= 2 if data[end - 2 : end] == b"\r\n" else 0
    return max(end, record.content)


def _records_in_member(file: str, offset: int, length: int, data: bytes) -> Iterator[Item]:
    """The records of one whole gzip member: one by the book, several where a file was compressed as one."""
    position, index = 0, 0
    while record := _header(data, position):
        end = _block_end(data, record)
        yield _item(file, offset, length, record.headers, data[record.content : end], index)
        index += 1
        position = end
        while data[position : position + 1] in (b"\r", b"\n"):
            position += 1


@dataclass(slots=True)
class _Member:
    """What came of inflating a gzip member: ``data`` up to a bound, its compressed length, and a problem."""

    data: bytes
    length: int
    problem: str | None


def _inflate(window: _Window, offset: int, most: int) -> _Member:
    """Inflate the member at ``offset``, keeping at most ``most`` bytes; the checksum is zlib's to verify."""
    inflater, position, size = zlib.decompressobj(31), offset, 0
    kept: list[bytes] = []
    pending: bytes | memoryview = b""
    while not inflater.eof:
        if not pending:
            pending = window.at(position)[:_FEED]
            if not pending:
                return _Member(b"".join(kept), position - offset, "cut short")
            position += len(pending)
        try:
            part = inflater.decompress(pending, _CHUNK)
        except zlib.error:
            return _Member(b"".join(kept), position - offset, "bytes")
        pending = inflater.unconsumed_tail
        size += len(part)
        if size <= most:
            kept.append(part)
        elif size > 16 * most:  # a bomb: its end is not worth waiting for
            return _Member(b"".join(kept), position - offset, "bytes")
    length = position - offset - len(inflater.unused_data)
    return _Member(b"".join(kept), length, "too long" if size > most else None)


def _begins_record(window: _Window, offset: int) -> bool:
    """Whether a gzip member at ``offset`` inflates to a WARC header."""
    head = window.at(offset, _FEED)[:_FEED]
    if head[:3] != _MAGIC:
        return False
    try:
        return _VERSION.match(zlib.decompressobj(31).decompress(head, 64)) is not None
    except zlib.error:
        return False


def _next_member(window: _Window, offset: int, within: int | None = None) -> int:
    """The first place from ``offset`` on (``within`` so many bytes) where a member with a WARC header begins.

    Else the file's end, or a place past the bound.
    """
    last = window.size if within is None else offset + within
    while True:
        data = bytes(window.at(offset, _CHUNK))
        found = data.find(_MAGIC)
        if found >= 0:
            if _begins_record(window, offset + found):
                return offset + found
            offset += found + 1
            if offset >= last:
                return offset
        elif len(data) < _CHUNK or offset + len(data) >= last:
            return offset + len(data)
        else:
            offset += len(data) - 2


def _read_gzip(file: str, window: _Window, most: int) -> Iterator[Item]:
    offset = 0
    while head := bytes(window.at(offset, 512)[:512]):
        padding = len(head) - len(head.lstrip(b"\0"))
        if padding:
            offset += padding
            continue
        member = _inflate(window, offset, most) if _begins_record(window, offset) else _Member(b"", 0, "bytes")
        if member.problem is None:
            items = list(_records_in_member(file, offset, member.length, member.data))
            if items:
                yield from items
                offset += member.length
                continue
            member.problem = "bytes"
        if member.problem == "too long":
            yield _too_long(file, offset, member)
            offset += member.length
            continue
        end = _next_member(window, offset + 1)
        yield Damage(file, offset, end - offset, member.problem)
        offset = end


def _too_long(file: str, offset: int, member: _Member) -> Item:
    record = _header(member.data, 0)
    kind = record.headers.get("warc-type", "").lower() if record else ""
    if record and kind not in CAPTURES:
        return Skipped(file, offset, member.length, kind)
    return Damage(file, offset, member.length, "too long")


def _agrees(headers: dict[str, str], block: bytes) -> bool | None:
    """Whether a block has the SHA-1 that its WARC-Block-Digest names; None where it names none."""
    algorithm, _, value = headers.get("warc-block-digest", "").partition(":")
    if algorithm.lower() not in ("sha1", "sha-1") or not value:
        return None
    found = hashlib.sha1(block, usedforsecurity=False)
    return value.strip().lower() in (base64.b32encode(found.digest()).decode().lower(), found.hexdigest())


def _next_plain(window: _Window, offset: int) -> int:
    """Where the next line that opens a record begins, from ``offset`` on; else the file's end."""
    while True:
        data = bytes(window.at(offset, _CHUNK))
        found = _NEXT_RECORD.search(data)
        if found:
            return offset + found.end()
        if len(data) < _CHUNK:
            return offset + len(data)
        offset += len(data) - 32


def _is_bound(window: _Window, offset: int) -> bool:
    """Whether a record may end at ``offset``: inside the file, before line ends and another record or the end."""
    if offset > window.size:
        return False
    rest = bytes(window.at(offset, 64)[:64])
    if rest.startswith(b"\r\n\r\n"):  # what ends a record, whatever stands behind it
        return True
    rest = rest.lstrip(b"\r\n\0")
    return not rest or _VERSION.match(rest) is not None


def _plain_record(file: str, window: _Window, offset: int, most: int) -> tuple[Item, int]:
    """The plain record at ``offset`` (or the damage there) and where to go on."""
    head = bytes(window.at(offset, LONGEST_HEADER)[:LONGEST_HEADER])
    record = _header(head, 0)
    if record is None:
        end = _next_plain(window, offset)
        return Damage(file, offset, end - offset, "bytes"), end
    content = offset + record.content
    end = content + (record.length or 0)
    fits = record.length is not None and _is_bound(window, end)
    if not fits:
        end = _next_plain(window, content - 1)
    if end - content > most:
        return _too_long(file, offset, _Member(head, end - offset, None)), end
    block = bytes(window.at(content, end - content)[: end - content])
    if not fits:
        block = re.sub(rb"(\r\n){1,2}\Z", b"", block)
    # Nothing but a digest vouches for plain bytes: a wrong one means damage, a right one mends a wrong length.
    agrees = _agrees(record.headers, block)
    if agrees is False or not (agrees or fits):
        reason = "bytes" if fits or window.at(end) else "cut short"
        return Damage(file, offset, end - offset, reason), end
    return _item(file, offset, end - offset, record.headers, block), end


def _read_plain(file: str, window: _Window, most: int) -> Iterator[Item]:
    offset = 0
    while head := bytes(window.at(offset, 512)[:512]):
        blank = len(head) - len(head.lstrip(b"\r\n\0"))
        if blank:
            offset += blank
            continue
        item, offset = _plain_record(file, window, offset, most)
        yield item


def _is_compressed(window: _Window) -> bool:
    """Whether a file's records are gzip members: by its first bytes and, where they do not say, by what follows."""
    head = bytes(window.at(0, 16)[:16])
    if head.startswith(_MAGIC):
        return True
    if head.startswith(b"WARC/") and not window.path.endswith(".gz"):
        return False
    return _next_member(window, 0, _CHUNK) < min(_CHUNK, window.size)


def read(path: str, file: str | None = None, most: int = LARGEST_RECORD) -> Iterator[Item]:
    """All records of a capture file in order, and the damage between them.

    ``file`` is the name that items carry (by default the path). ``most`` bounds one record's bytes.
    Raises FileNotFoundError, or the storage's errors; nothing that stands in the file raises.
    """
    with ExitStack() as stack:
        window = _Window(path, stack)
        yield from (_read_gzip if _is_compressed(window) else _read_plain)(file or path, window, most)
