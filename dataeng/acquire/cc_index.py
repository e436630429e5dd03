"""Common Crawl's columnar index: where the records of a host, a domain or an address pattern stand.

Parquet files below ``cc-index/table/cc-main/warc/crawl=…/subset=warc/``; row groups whose statistics rule
them out are not read, and of the others only the columns that are asked for.
https://commoncrawl.org/columnar-index describes the columns.
"""

from __future__ import annotations

import functools
import io
import operator
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dataeng import storage
from dataeng.acquire.remote import Pauses, Source, Web, read, size_of
from dataeng.cli import UserError

_PLACE = ("warc_filename", "warc_record_offset", "warc_record_length")
_AHEAD = 256 << 10  # bytes read at once at least, so that a footer costs one request


class Place(NamedTuple):
    """A record's place: the WARC file's path below the base address, and bytes in it."""

    path: str
    offset: int
    length: int


class Wanted(NamedTuple):
    """What is looked for; each list that is not empty must be met by one of its items."""

    hosts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    mime_types: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()


class _Ranges(io.RawIOBase):
    """A remote file for pyarrow: each read is one range, what stands right behind it kept."""

    def __init__(self, source: Source, path: str, pauses: Pauses) -> None:
        self.source, self.path, self.pauses = source, path, pauses
        self.size = size_of(source, path, pauses)
        self.position, self.held_at, self.held = 0, 0, b""
        self.lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}
        self.position = bases[whence] + offset
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        with self.lock:
            end = self.size if size is None or size < 0 else min(self.size, self.position + size)
            start = self.position
            if end <= start:
                return b""
            if not (self.held_at <= start and end <= self.held_at + len(self.held)):
                # Near the end stands the footer, which is read backwards.
                first = max(0, min(start, self.size - _AHEAD)) if self.size - start < _AHEAD else start
                last = max(end, min(self.size, first + _AHEAD))
                self.held = read(self.source, self.path, first, last - first, self.pauses)
                self.held_at = first
            self.position = end
            return self.held[start - self.held_at : end - self.held_at]

    def readall(self) -> bytes:
        return self.read(-1)


def pattern_rule(pattern: str) -> str:
    """The regular expression of an address pattern, in which ``*`` stands for anything."""
    return "^" + ".*".join(re.escape(part) for part in pattern.split("*")) + "$"


def _one_of(name: str, values: tuple[Any, ...]) -> pc.Expression:
    """Equality with one of the values, written so that a row group's minimum and maximum can rule it out."""
    return functools.reduce(operator.or_, [pc.field(name) == value for value in values])


def _pattern(pattern: str) -> pc.Expression:
    rule = pc.match_substring_regex(pc.field("url"), pattern_rule(pattern))
    host = urlsplit(pattern).hostname or ""
    return rule if "*" in host or not host else (pc.field("url_host_name") == host) & rule


def condition(wanted: Wanted) -> pc.Expression:
    """The filter over the index's columns: (hosts or domains) and urls and the rest."""
    parts = []
    places = [_one_of("url_host_name", wanted.hosts)] if wanted.hosts else []
    places += [_one_of("url_host_registered_domain", wanted.domains)] if wanted.domains else []
    if places:
        parts.append(functools.reduce(operator.or_, places))
    if wanted.urls:
        parts.append(functools.reduce(operator.or_, [_pattern(url) for url in wanted.urls]))
    if wanted.languages:
        rule = f"(^|,)({'|'.join(re.escape(code) for code in wanted.languages)})(,|$)"
        parts.append(pc.match_substring_regex(pc.field("content_languages"), rule))
    if wanted.mime_types:
        parts.append(_one_of("content_mime_detected", wanted.mime_types))
    if wanted.statuses:
        parts.append(_one_of("fetch_status", wanted.statuses))
    return functools.reduce(operator.and_, parts)


def select(file: Any, name: str, wanted: Wanted, most: int) -> list[Place]:
    """The places of matching records in one index file, in its order, at most ``most``.

    Raises UserError where the file is no Parquet or lacks a column.
    """
    found: list[Place] = []
    try:
        fragment = ds.ParquetFileFormat().make_fragment(pa.PythonFile(file, mode="r"))
        scanner = fragment.scanner(columns=list(_PLACE), filter=condition(wanted), use_threads=False)
        for batch in scanner.to_batches():
            rows = zip(*(batch.column(column).to_pylist() for column in _PLACE), strict=True)
            found += [Place(str(path), int(at), int(length)) for path, at, length in rows if path and length]
            if len(found) >= most:
                return found[:most]
    except pa.ArrowException as error:
        problem = str(error).split("\n")[0]
        raise UserError(f"{name}: is no index file of Common Crawl's: {problem}") from None
    return found


def search(names: list[str], opened: Callable[[str], Any], wanted: Wanted, most: int, parallel: int) -> list[Place]:
    """The places found in all index files, several read at once; the first ``most`` in their order.

    Raises UserError where nothing is found.
    """
    found: dict[Place, None] = {}
    with ThreadPoolExecutor(parallel) as pool:
        for start in range(0, len(names), parallel):  # no more is under way than may be thrown away
            some = names[start : start + parallel]
            for places in pool.map(lambda name: select(opened(name), name, wanted, most), some):
                found |= dict.fromkeys(places)
            if len(found) >= most:
                break
    if not found:
        raise UserError(f"common_crawl: the index ({len(names)} files) has no record of what the recipe asks for")
    return list(found)[:most]


def remote_file(source: Source, path: str, pauses: Pauses) -> Any:
    """A remote index file for ``select``."""
    return _Ranges(source, path, pauses)


def stored_files(index: str) -> list[str]:
    """The index files that a folder or pattern names, local or s3://."""
    return [entry.path for _, entry in storage.expand(index, (".parquet",))]


def listed_files(listing: bytes) -> list[str]:
    """The index files of successful fetches that a snapshot's listing names."""
    return [line for line in listing.decode("utf-8", "replace").split() if "/subset=warc/" in line]


def is_web(source: Source) -> bool:
    """Whether a source can only be read by ranges over HTTP."""
    return isinstance(source, Web)


def batches(places: list[Place], records: int, most_bytes: int) -> Iterator[list[Place]]:
    """Places sorted by file and offset, cut where a batch holds ``records`` of them or ``most_bytes``."""
    batch: list[Place] = []
    size = 0
    for place in sorted(places):
        if batch and (len(batch) >= records or size + place.length > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(place)
        size += place.length
    if batch:
        yield batch


def joined(batch: list[Place], gap_bytes: int, most_bytes: int) -> list[list[Place]]:
    """Neighbours of one file, at most ``gap_bytes`` apart, put together for one request of ``most_bytes`` at most."""
    groups: list[list[Place]] = []
    for place in batch:
        last = groups[-1] if groups else None
        if (
            last
            and last[-1].path == place.path
            and 0 <= place.offset - (last[-1].offset + last[-1].length) <= gap_bytes
            and place.offset + place.length - last[0].offset <= most_bytes
        ):
            last.append(place)
        else:
            groups.append([place])
    return groups
