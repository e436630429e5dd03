"""Byte ranges of remote files: over HTTP(S), from object storage or from a local folder.

What can be tried again is raised as Busy or Cut, what cannot as UserError; ``read`` does the trying.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from dataeng import storage
from dataeng.cli import Failure, UserError

_BUSY = (403, 408, 425, 429, 500, 502, 503, 504)  # Common Crawl answers 403 as well as 503 to who asks too fast
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_CHUNK = 256 << 10
_STORED = 8 << 20  # bytes of one request to object storage
LONGEST_PAUSE = 300.0


class Busy(Exception):
    """The server will not answer now; ``after`` is what its Retry-After asks for, in seconds."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Cut(Exception):
    """An answer broke off, or was not the range that had been asked for."""


class Changed(Exception):
    """The file is no longer the one of which a part was read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A file's bytes from ``start`` on; ``size`` is the whole file's, ``tag`` changes with its contents."""

    start: int
    size: int | None
    tag: str
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class Manners:
    """How servers are asked: in whose name, for how long, how often again."""

    user_agent: str
    timeout_seconds: float = 60.0
    retries: int = 8
    parallel: int = 4
    first_pause: float = 1.0  # seconds; doubles with each failure


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing."""
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


@dataclass
class Pauses:
    """The pause that all requests of one server keep together: who is refused speaks for the others."""

    manners: Manners
    sleep: Callable[[float], object] | None = None  # by default until `stop` is set
    stop: threading.Event = field(default_factory=threading.Event)
    until: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: dict[str, int] = field(default_factory=lambda: {"requests": 0, "retried": 0})

    def wait(self) -> None:
        """Sleep until requests are welcome again; raises Failure once the run is being given up."""
        with self.lock:
            self.counts["requests"] += 1
            left = self.until - time.monotonic()
        if left > 0:
            self._sleep(left)
        if self.stop.is_set():
            raise Failure("stopped, since another request of this run failed or it was interrupted")

    def _sleep(self, seconds: float) -> None:
        (self.sleep or self.stop.wait)(seconds)

    def after(self, error: Busy | Cut, failures: int) -> None:
        """Pause after the ``failures``-th failure in a row: doubling, with jitter, never less than was asked for."""
        doubled = min(self.manners.first_pause * 2.0 ** (failures - 1), LONGEST_PAUSE)
        pause = doubled * random.uniform(0.5, 1.0)
        with self.lock:
            self.counts["retried"] += 1
            if isinstance(error, Busy):
                pause = max(pause, min(error.after or 0.0, LONGEST_PAUSE))
                self.until = max(self.until, time.monotonic() + pause)
        if isinstance(error, Cut):
            self._sleep(pause)


class Web:
    """Files below an http(s) address."""

    def __init__(self, base: str, manners: Manners) -> None:
        self.base, self.manners = base.rstrip("/"), manners
        self.pool = urllib3.PoolManager(maxsize=manners.parallel, timeout=urllib3.Timeout(manners.timeout_seconds))

    def open(self, path: str, start: int, length: int | None, tag: str) -> Answer:
        """The file from ``start`` on, about ``length`` bytes (all of it where the server knows no ranges).

        Raises Busy, Cut, or Changed where it is not what ``tag`` says; UserError where it is not there.
        """
        headers = {"User-Agent": self.manners.user_agent, "Accept-Encoding": "identity"}
        headers["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        if tag.startswith('"'):
            headers["If-Match"] = tag
        url = f"{self.base}/{path}"
        try:
            response = self.pool.request(
                "GET",
                url,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=urllib3.Retry(5, connect=0, read=0, status=0, other=0),
            )
        except LocationValueError as error:
            raise UserError(f"{url}: is no address: {error}") from None
        except (HTTPError, OSError) as error:
            raise Cut(f"{url}: {type(error).__name__}: {error}") from None
        try:
            return self._answer(url, start, response)
        except BaseException:
            response.close()
            raise

    def _answer(self, url: str, start: int, response: Any) -> Answer:
        status, headers = response.status, response.headers
        tag = headers.get("ETag") or f"modified {headers.get('Last-Modified', '')}"
        if "aws:kms" in headers.get("x-amz-server-side-encryption", ""):
            tag = f"kms {tag}"  # no MD5 of the contents then
        if status == 206:
            found = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if not found or int(found[1]) != start or int(found[2]) < start:
                raise Cut(f"{url}: sent the range {headers.get('Content-Range')!r} where byte {start} was asked for")
            if found[3] == "*":
                raise Cut(f"{url}: does not tell the file's length")
            return Answer(start, int(found[3]), tag, _body(url, response, int(found[2]) - start + 1))
        if status == 200:
            length = headers.get("Content-Length", "")
            size = int(length) if re.fullmatch(r"\d{1,18}", length) else None
            return Answer(0, size, tag, _body(url, response, size))
        if status == 416 and re.fullmatch(r"bytes \*/\d{1,18}", headers.get("Content-Range", "")):
            response.close()
            return Answer(start, int(headers["Content-Range"][8:]), tag, iter(()))
        if status == 412:
            raise Changed(url)
        if status in _BUSY:
            raise Busy(f"{url}: answered {status}", retry_after(headers.get("Retry-After")))
        what = "is not there" if status in (404, 410) else "was refused"
        raise UserError(f"{url}: {what} (status {status}): check the snapshot's name and the base address")


def _body(url: str, response: Any, length: int | None) -> Iterator[bytes]:
    """The answer's bytes, exactly ``length`` where that is known; raises Cut where fewer come."""
    left = length
    try:
        while left is None or left > 0:
            part = response.read1(_CHUNK) if left is None else response.read1(min(_CHUNK, left))
            if not part:
                break
            left = None if left is None else left - len(part)
            yield part
    except (HTTPError, OSError) as error:
        raise Cut(f"{url}: {type(error).__name__}: {error}") from None
    finally:
        response.close() if left else response.release_conn()
    if left:
        raise Cut(f"{url}: {left} bytes are missing")


class Store:
    """Files below a local folder or an s3:// address."""

    def __init__(self, base: str) -> None:
        self.base = storage.plain(base)

    def open(self, path: str, start: int, length: int | None, tag: str) -> Answer:
        """As ``Web.open``; the storage's own client tries again."""
        place = storage.join(self.base, path)
        found = storage.stat(place)
        if found is None:
            raise UserError(f"{place}: is not there: check the snapshot's name and the base address")
        if tag and found.tag != tag:
            raise Changed(place)
        end = found.size if length is None else min(found.size, start + length)
        positions = range(start, end, _STORED)
        chunks = (storage.read_bytes(place, at, min(_STORED, end - at), found.tag) for at in positions)
        return Answer(start, found.size, found.tag, chunks)


Source = Web | Store


def source_of(base: str, manners: Manners) -> Source:
    """What ``base`` names: an http(s) address, an s3:// address or a local folder."""
    return Web(base, manners) if base.startswith(("http://", "https://")) else Store(base)


def _collect(answer: Answer, start: int, length: int) -> bytes:
    """The ``length`` bytes from ``start`` on of an answer, which may begin earlier (ranges ignored)."""
    skip, parts, wanted = start - answer.start, [], length
    for chunk in answer.chunks:
        kept = chunk[skip:] if skip else chunk
        skip = max(0, skip - len(chunk))
        parts.append(kept[:wanted])
        wanted -= len(parts[-1])
        if wanted <= 0:
            break
    if wanted > 0:
        raise Cut(f"{wanted} of {length} bytes from {start} on are missing")
    return b"".join(parts)


def tried(action: Callable[[], Any], pauses: Pauses, what: str) -> Any:
    """``action`` until it works; raises Failure after ``retries`` further tries that were Busy or Cut."""
    for failures in range(1, pauses.manners.retries + 2):
        try:
            pauses.wait()
            return action()
        except (Busy, Cut) as error:
            if failures > pauses.manners.retries:
                raise Failure(f"{what}: given up after {failures} tries: {error}") from None
            pauses.after(error, failures)
    raise AssertionError("unreachable")


def read(source: Source, path: str, start: int, length: int, pauses: Pauses) -> bytes:
    """``length`` bytes of a file from ``start`` on."""
    return bytes(tried(lambda: _collect(source.open(path, start, length, ""), start, length), pauses, path))


def read_whole(source: Source, path: str, most: int, pauses: Pauses) -> bytes:
    """A small file whole; raises Failure where it is longer than ``most`` bytes."""

    def once() -> bytes:
        parts, size = [], 0
        for chunk in source.open(path, 0, None, "").chunks:
            parts.append(chunk)
            size += len(chunk)
            if size > most:
                raise Failure(f"{path}: is longer than {most:,} bytes")
        return b"".join(parts)

    return bytes(tried(once, pauses, path))


def size_of(source: Source, path: str, pauses: Pauses) -> int:
    """A file's length in bytes; raises Failure where the server does not tell."""

    def once() -> int | None:
        answer = source.open(path, 0, 1, "")
        next(answer.chunks, None)
        return answer.size

    size = tried(once, pauses, path)
    if size is None:
        raise Failure(f"{path}: the server does not tell its length")
    return int(size)
