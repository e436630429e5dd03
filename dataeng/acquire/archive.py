"""Exchanges written as WARC/1.1: request and response records, one gzip member each."""

from __future__ import annotations

import io
import platform
import uuid
from typing import BinaryIO
from urllib.parse import urlsplit

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from dataeng.acquire.fetch import Exchange

# The body is kept without transfer coding, so its header keeps its value under another name.
_TRANSFER = "transfer-encoding"


class Archive:
    """Writes exchanges to an open file. Not for several threads."""

    def __init__(self, file: BinaryIO, software: str, stable: tuple[str, ...] = ()) -> None:
        """``stable`` hosts are embedded ones: their records' ids follow from the address alone."""
        self.stable = stable
        self.writer = WARCWriter(file, gzip=True, warc_version="1.1")
        info = {"software": software, "python": platform.python_version(), "robots": "obey", "format": "WARC/1.1"}
        self.writer.write_record(self.writer.create_warcinfo_record("crawl-00000.warc.gz", info))

    def _id(self, kind: str, exchange: Exchange) -> str:
        when = "" if urlsplit(exchange.url).hostname in self.stable else exchange.date
        return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {when} {exchange.url}')}>"

    def write(self, exchange: Exchange) -> None:
        """Append the response and the request that led to it."""
        own_id = self._id("response", exchange)
        headers = [
            (f"X-Archive-Orig-{name}" if name.lower() == _TRANSFER else name, value) for name, value in exchange.headers
        ]
        more = {"WARC-Record-ID": own_id, "WARC-Date": exchange.date}
        if exchange.truncated:
            more["WARC-Truncated"] = exchange.truncated
        answer = StatusAndHeaders(f"{exchange.status} {exchange.reason}".strip(), headers, protocol="HTTP/1.1")
        self._write("response", exchange, exchange.body, answer, more)
        ask = StatusAndHeaders(f"GET {exchange.target} HTTP/1.1", exchange.request, is_http_request=True)
        more = {"WARC-Record-ID": self._id("request", exchange), "WARC-Date": exchange.date}
        self._write("request", exchange, b"", ask, more | {"WARC-Concurrent-To": own_id})

    def _write(self, kind: str, exchange: Exchange, body: bytes, http: StatusAndHeaders, more: dict[str, str]) -> None:
        record = self.writer.create_warc_record(
            exchange.url,
            kind,
            payload=io.BytesIO(body),
            length=len(body),
            http_headers=http,
            warc_headers_dict=more,
        )
        self.writer.write_record(record)
