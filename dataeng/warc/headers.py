"""The headers that open records: WARC's lines and ARC's one line, parsed and looked for in damaged bytes.

WARC/1.0 and 1.1: ISO 28500. ARC versions 1 and 2: https://archive.org/web/researcher/ArcFileFormat.php
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

LONGEST_HEADER = 2 << 20  # bytes of a record's header, which may hold a URL of a megabyte
_USUAL_HEADER = 4 << 10
_VERSION = re.compile(rb"WARC/[01]\.\d{1,3}[ \t]*\r?\n")
_LONGEST_VERSION = 64
_RECORD = re.compile(rb"WARC/[01]\.\d{1,3}[ \t]*\r?\n[A-Za-z][\w-]{0,30}[ \t]*:")  # wherever it stands in a line
_FOLD = re.compile(r"\r?\n[ \t]+")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_ARC_START = re.compile(rb"[a-zA-Z][\w+.-]{0,20}:")
_ARC_ADDRESS = re.compile(rb"[\d.]{7,15}|[0-9a-fA-F:]{2,39}|-")
_ARC_KNOWN = re.compile(rb"(?:https?|ftp|dns|filedesc|whois|file|data|urn|metadata|mailto|news|gopher):")
_ARC_MARRED = re.compile(rb"[\w+.-]+?(?:https?|ftp|dns|filedesc):")  # bytes put before a scheme
_ARC_TAIL = re.compile(rb" \d{1,18} ?\r?\n")
_LONGEST_TAIL = 24
_ARC_DATE = re.compile(rb"\d{8,17}")
# Fields after the URL, which may hold spaces: version 1, version 2, version 1 with a parameter in its media type.
_ARC_FIELDS = (4, 9, 5)


class Headers(Mapping[str, str]):
    """A record's header fields under lower-case names, taken apart when they are first asked for."""

    __slots__ = ("_fields", "_lines")

    def __init__(self, lines: bytes) -> None:
        self._lines = lines
        self._fields: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._fields is None:
            self._fields = _fields(self._lines.decode("utf-8", "replace"))
        return self._fields

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class Head(NamedTuple):
    """A record's header, its own size in bytes, Content-Length where that is a number, and its type."""

    headers: Mapping[str, str]
    size: int
    length: int | None
    kind: str


class Grammar(NamedTuple):
    """How the records of a format open.

    ``parse`` gives the header at a place, also None where it is not there whole; ``opens``: whether one may begin
    there; ``find``: where the next header seems to begin, also in the middle of a line, or -1; ``may_open``:
    whether the header that ``parse`` does not find may still come, its first bytes being these. ``after``
    stands behind each record.
    """

    parse: Callable[[bytes, int], Head | None]
    opens: Callable[[bytes, int], bool]
    find: Callable[[bytes, int, int], int]
    may_open: Callable[[bytes], bool]
    after: bytes


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _header_end(data: bytes, start: int) -> tuple[int, int] | None:
    """Where a WARC header's last line ends and its block begins."""
    blank = data.find(b"\r\n\r\n", start, start + _USUAL_HEADER)
    if blank >= 0 and data.find(b"\n\n", start, blank) < 0 and data.find(b"\n\r\n", start, blank + 1) < 0:
        return blank, blank + 4
    # No header holds the beginning of another, nor a line of its kind: the search ends there, or its cost would be
    # that of all bytes that follow for each of many beginnings.
    other = _find_warc(data, start + 5, min(start + LONGEST_HEADER, len(data)))
    limit = other if other >= 0 else start + LONGEST_HEADER
    following = data.find(b"\nWARC/", start, limit)
    found = _BLANK_LINE.search(data, start, following + 1 if following >= 0 else limit)
    return found.span() if found else None


def _fields(lines: str) -> dict[str, str]:
    """The named fields of header lines; the first of a name counts, indented lines go on with a value."""
    if "\n " in lines or "\n\t" in lines:
        lines = _FOLD.sub(" ", lines)
    headers: dict[str, str] = {}
    for line in lines.split("\n"):
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon and name not in headers:
            headers[name] = value.strip()
    return headers


def parse_warc(data: bytes, start: int) -> Head | None:
    """The WARC header that begins at ``start``."""
    version = _VERSION.match(data, start)
    if not version:
        return None
    found = _header_end(data, version.end() - 2)
    if not found:
        return None
    lines = data[version.end() - 1 : max(found[0], version.end())]
    headers = Headers(lines)
    return Head(
        headers,
        found[1] - start,
        _number(_value(lines, b"Content-Length", headers)),
        _value(lines, b"WARC-Type", headers).lower(),
    )


def _value(lines: bytes, name: bytes, headers: Headers) -> str:
    """One header's value, by its usual spelling where that is there: the others need not be parsed for it."""
    start = lines.find(b"\n" + name + b": ")
    if start < 0:
        return headers.get(name.decode().lower(), "")
    start += len(name) + 3
    end = lines.find(b"\n", start)
    return (lines[start:end] if end >= 0 else lines[start:]).decode("utf-8", "replace").strip()


def _opens_warc(data: bytes, start: int) -> bool:
    return data.startswith(b"WARC/", start) and _VERSION.match(data, start, start + _LONGEST_VERSION) is not None


def _find_warc(data: bytes, start: int, end: int) -> int:
    while (found := data.find(b"WARC/", start, end)) >= 0:
        if _RECORD.match(data, found, end):
            return found
        start = found + 5
    return -1


def _iso_date(digits: str) -> str:
    digits = digits[:14].ljust(14, "0")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}Z"


def _arc_fields(line: bytes) -> list[bytes] | None:
    """URL, address, date, media type … length of an ARC header line, or None for another line."""
    if _ARC_MARRED.match(line) or not _ARC_START.match(line) or not line.rpartition(b" ")[2].isdigit():
        return None
    for count in _ARC_FIELDS:
        fields = line.rsplit(b" ", count)
        if len(fields) == count + 1 and _ARC_DATE.fullmatch(fields[2]) and _ARC_ADDRESS.fullmatch(fields[1]):
            return fields
    return None


def parse_arc(data: bytes, start: int) -> Head | None:
    """The ARC header line that begins at ``start``, its fields under WARC's names."""
    end = data.find(b"\n", start, start + LONGEST_HEADER) + 1
    fields = _arc_fields(data[start:end].rstrip(b" \r\n")) if end else None
    if not fields:
        return None
    url = fields[0].decode("utf-8", "replace")
    kind = "arcinfo" if url.startswith("filedesc:") else "response" if data.startswith(b"HTTP/", end) else "resource"
    length = fields[-1].decode()
    headers = {
        "warc-type": kind,
        "warc-target-uri": url,
        "warc-ip-address": fields[1].decode(),
        "warc-date": _iso_date(fields[2].decode()),
        "content-type": fields[3].decode("latin-1"),
        "content-length": length,
    }
    return Head(headers, end - start, _number(length), kind)


def _opens_arc(data: bytes, start: int) -> bool:
    return _ARC_START.match(data, start) is not None and parse_arc(data, start) is not None


def _find_arc(data: bytes, start: int, end: int) -> int:
    line = data.rfind(b"\n", 0, start) + 1
    while (last := data.find(b"\n", line, end)) >= 0:
        if _ARC_TAIL.search(data, max(line, last - _LONGEST_TAIL), last + 1):
            place = _ARC_KNOWN.search(data, max(line, start), last)
            for found in [place.start()] if place else [line] if line >= start else []:
                if parse_arc(data, found):
                    return found
        line = last + 1
    return -1


def _may_open_warc(head: bytes) -> bool:
    return head.startswith(b"WARC/"[: len(head)]) and (b"\n" not in head or _opens_warc(head, 0))


def _may_open_arc(head: bytes) -> bool:
    return _ARC_KNOWN.match(head) is not None and (b"\n" not in head or _opens_arc(head, 0))


WARC = Grammar(parse_warc, _opens_warc, _find_warc, _may_open_warc, b"\r\n\r\n")
ARC = Grammar(parse_arc, _opens_arc, _find_arc, _may_open_arc, b"\n")


def grammar_of(data: bytes, name: str) -> Grammar:
    """The format of a file whose text begins with ``data``; its name decides where the text does not."""
    if _opens_warc(data, 0):
        return WARC
    if _opens_arc(data, 0):
        return ARC
    warc, arc = _find_warc(data, 0, len(data)), _find_arc(data, 0, len(data))
    if warc >= 0 or arc >= 0:
        return ARC if warc < 0 or 0 <= arc < warc else WARC
    return ARC if name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".arc") else WARC
