"""Exchanges written as WARC/1.1: request, response and revisit records, one gzip member each, files cut by size."""

from __future__ import annotations

import io
import os
import platform
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from dataeng.acquire.fetch import Exchange
from dataeng.acquire.frontier import Seen
from dataeng.cli import Failure

# The body is kept without transfer coding, so its header keeps its value under another name.
_TRANSFER = "transfer-encoding"
_NOT_MODIFIED = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"


class Archive:
    """Writes exchanges to ``FOLDER/PREFIX-00000.warc.gz`` and further files. Not for several threads."""

    def __init__(self, folder: Path, prefix: str, software: str, file_bytes: int, stable: tuple[str, ...] = ()) -> None:
        """``stable`` hosts are embedded ones: their records' ids follow from the address alone."""
        self.folder, self.prefix, self.software = folder, prefix, software
        self.file_bytes, self.stable = file_bytes, stable
        self.number = -1

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.prefix}-{number:05}.warc.gz"

    def files(self) -> list[Path]:
        """All files, in order."""
        return sorted(self.folder.glob(f"{self.prefix}-[0-9]*.warc.gz"))

    def open(self, place: tuple[int, int] | None) -> None:
        """Begin, or go on behind the bytes of file ``place[0]`` that were committed; what stands behind goes."""
        if place is None:
            for path in self.files():
                path.unlink()
            self._begin(0)
            return
        self.number, size = place
        for path in self.files():
            if path > self._path(self.number):
                path.unlink()
        path = self._path(self.number)
        if not path.exists() or path.stat().st_size < size:
            raise Failure(f"{path}: has lost bytes that the crawl had written: delete {self.folder} to crawl anew")
        self.file = open(path, "r+b")  # noqa: SIM115 — stays open until `close`
        self.file.truncate(size)
        self.file.seek(size)
        self.writer = WARCWriter(self.file, gzip=True, warc_version="1.1")

    def _begin(self, number: int) -> None:
        self.number = number
        path = self._path(number)
        self.file = open(path, "w+b")  # noqa: SIM115 — stays open until `close`
        self.writer = WARCWriter(self.file, gzip=True, warc_version="1.1")
        info = {"software": self.software, "python": platform.python_version(), "robots": "obey", "format": "WARC/1.1"}
        self.writer.write_record(self.writer.create_warcinfo_record(path.name, info))

    def commit(self) -> tuple[int, int]:
        """Have all records reach the disk; the number of the open file and its bytes."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.number, self.file.tell()

    def close(self) -> None:
        """Close the open file."""
        self.file.close()

    def _room(self) -> None:
        if self.file.tell() >= self.file_bytes:
            self.commit()
            self.close()
            self._begin(self.number + 1)

    def _id(self, kind: str, exchange: Exchange) -> str:
        when = "" if urlsplit(exchange.url).hostname in self.stable else exchange.date
        return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {when} {exchange.url}')}>"

    def write(self, exchange: Exchange) -> None:
        """Append the response and the request that led to it."""
        self._room()
        own_id = self._id("response", exchange)
        more = {"WARC-Record-ID": own_id, "WARC-Date": exchange.date}
        if exchange.truncated:
            more["WARC-Truncated"] = exchange.truncated
        record = self.writer.create_warc_record(
            exchange.url,
            "response",
            payload=io.BytesIO(exchange.body),
            length=len(exchange.body),
            http_headers=_answer(exchange),
            warc_headers_dict=more,
        )
        self.writer.write_record(record)
        self._request(exchange, own_id)

    def revisit(self, exchange: Exchange, seen: Seen) -> None:
        """Append a revisit record: the page is what ``seen`` holds, by its digest or by the server's word (304)."""
        self._room()
        own_id = self._id("revisit", exchange)
        more = {"WARC-Record-ID": own_id, "WARC-Date": exchange.date}
        if seen.id:
            more["WARC-Refers-To"] = seen.id
        record = self.writer.create_revisit_record(
            exchange.url, seen.digest, exchange.url, seen.date, http_headers=_answer(exchange), warc_headers_dict=more
        )
        if exchange.status == 304:
            record.rec_headers.replace_header("WARC-Profile", _NOT_MODIFIED)
        self.writer.write_record(record)
        self._request(exchange, own_id)

    def _request(self, exchange: Exchange, concurrent_to: str) -> None:
        ask = StatusAndHeaders(f"GET {exchange.target} HTTP/1.1", exchange.request, is_http_request=True)
        more = {"WARC-Record-ID": self._id("request", exchange), "WARC-Date": exchange.date}
        more["WARC-Concurrent-To"] = concurrent_to
        record = self.writer.create_warc_record(
            exchange.url, "request", payload=io.BytesIO(), length=0, http_headers=ask, warc_headers_dict=more
        )
        self.writer.write_record(record)


def _answer(exchange: Exchange) -> StatusAndHeaders:
    headers = [
        (f"X-Archive-Orig-{name}" if name.lower() == _TRANSFER else name.encode("ascii", "replace").decode(), value)
        for name, value in exchange.headers
    ]
    reason = exchange.reason.encode("ascii", "replace").decode()
    return StatusAndHeaders(f"{exchange.status} {reason}".strip(), headers, protocol="HTTP/1.1")
