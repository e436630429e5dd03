"""The headers that open records: WARC's lines and ARC's one line, parsed and looked for in damaged bytes.

WARC/1.0 and 1.1: ISO 28500. ARC versions 1 and 2: https://archive.org/web/researcher/ArcFileFormat.php
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

LONGEST_HEADER = 2 << 20  # bytes of a record's header, which may hold a URL of a megabyte
_USUAL_HEADER = 4 << 10
_VERSION = re.compile(rb"WARC/[01]\.\d{1,3}[ \t]*\r?\n")
_LONGEST_VERSION = 64
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
# URL, IP address, date, then type and length (version 1) or type … length (version 2, ten fields in all).
_ARC_LINE = re.compile(
    rb"(?P<url>[a-zA-Z][\w+.-]{0,20}:[^\n]*) (?P<ip>[\d.]{7,15}|[0-9a-fA-F:]{2,39}|-) (?P<date>\d{8,17}) "
    rb"(?P<kind>\S+)(?: (?P<more>[^\n]*))? (?P<length>\d{1,18}) ?\r?\n"
)


class Head(NamedTuple):
    """A record's header: lower-case names, its own size in bytes, and Content-Length where that is a number."""

    headers: dict[str, str]
    size: int
    length: int | None


class Grammar(NamedTuple):
    """How the records of a format open: ``parse`` at a place, ``opens`` where one may begin, ``find`` the next line.

    ``parse`` gives None as well where the header is not there whole; ``find`` gives -1 where there is none.
    ``after`` is what stands behind each record.
    """

    parse: Callable[[bytes, int], Head | None]
    opens: Callable[[bytes, int], bool]
    find: Callable[[bytes, int, int], int]
    after: bytes


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _header_end(data: bytes, start: int) -> tuple[int, int] | None:
    """Where a WARC header's last line ends and its block begins."""
    blank = data.find(b"\r\n\r\n", start, start + _USUAL_HEADER)
    if blank >= 0 and data.find(b"\n\n", start, blank) < 0 and data.find(b"\n\r\n", start, blank + 1) < 0:
        return blank, blank + 4
    limit = start + LONGEST_HEADER
    following = data.find(b"\nWARC/", start, limit)  # no header holds such a line, so the search ends there
    found = _BLANK_LINE.search(data, start, following + 1 if following >= 0 else limit)
    return found.span() if found else None


def parse_warc(data: bytes, start: int) -> Head | None:
    """The WARC header that begins at ``start``."""
    version = _VERSION.match(data, start)
    if not version:
        return None
    found = _header_end(data, version.end() - 2)
    if not found:
        return None
    headers: dict[str, str] = {}
    name = ""
    for line in data[version.end() : max(found[0], version.end())].decode("utf-8", "replace").split("\n"):
        if line[:1] in (" ", "\t") and name:
            headers[name] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if colon and name not in headers:
            headers[name] = value.strip()
        elif not colon:
            name = ""
    return Head(headers, found[1] - start, _number(headers.get("content-length", "")))


def _opens_warc(data: bytes, start: int) -> bool:
    return data.startswith(b"WARC/", start) and _VERSION.match(data, start, start + _LONGEST_VERSION) is not None


def _find_warc(data: bytes, start: int, end: int) -> int:
    while (found := data.find(b"\nWARC/", start, end)) >= 0:
        if _opens_warc(data, found + 1):
            return found + 1
        start = found + 1
    return -1


def _iso_date(digits: str) -> str:
    digits = digits[:14].ljust(14, "0")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:]}Z"


def parse_arc(data: bytes, start: int) -> Head | None:
    """The ARC header line that begins at ``start``, its fields under WARC's names."""
    end = data.find(b"\n", start, start + LONGEST_HEADER) + 1
    line = _ARC_LINE.fullmatch(data, start, end) if end else None
    if not line:
        return None
    url = line["url"].decode("utf-8", "replace")
    headers = {
        "warc-type": "arcinfo" if url.startswith("filedesc:") else "resource",
        "warc-target-uri": url,
        "warc-ip-address": line["ip"].decode(),
        "warc-date": _iso_date(line["date"].decode()),
        "content-type": line["kind"].decode("latin-1"),
        "content-length": line["length"].decode(),
    }
    size = end - start
    length = int(line["length"])
    if data.startswith(b"HTTP/", end) and headers["warc-type"] == "resource":
        headers |= {"warc-type": "response"}
    return Head(headers, size, length)


def _opens_arc(data: bytes, start: int) -> bool:
    end = data.find(b"\n", start, start + LONGEST_HEADER) + 1
    return bool(end) and data[end - 2 : end - 1].strip(b"\r 0123456789") == b"" and parse_arc(data, start) is not None


def _find_arc(data: bytes, start: int, end: int) -> int:
    while (found := data.find(b"\n", start, end)) >= 0:
        if _opens_arc(data, found + 1):
            return found + 1
        start = found + 1
    return -1


WARC = Grammar(parse_warc, _opens_warc, _find_warc, b"\r\n\r\n")
ARC = Grammar(parse_arc, _opens_arc, _find_arc, b"\n")


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
