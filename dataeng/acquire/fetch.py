"""One HTTP request under limits: bytes, time, and no way into private networks."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from urllib3.exceptions import HTTPError, NewConnectionError

from dataeng.acquire import network
from dataeng.acquire.network import Unreachable

RETRIED = (429, 500, 502, 503, 504)
REDIRECTS = (301, 302, 303, 307, 308)
_MOST_ADDRESSES = 3


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with its answer as it came: ``body`` is still content-coded; ``truncated`` says by what limit."""

    url: str
    date: str
    request: list[tuple[str, str]]
    target: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes = field(repr=False)
    truncated: str | None = None

    def header(self, name: str) -> str:
        """A header of the answer, or ``""``."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def digest(self) -> str:
        """SHA-1 of the body as WARC-Payload-Digest has it."""
        return "sha1:" + base64.b32encode(hashlib.sha1(self.body, usedforsecurity=False).digest()).decode()


@dataclass(frozen=True)
class Limits:
    """Bounds of one response. ``connect_to`` maps an embedded host to the address and port that really serve it."""

    user_agent: str
    response_bytes: int
    timeout_seconds: float
    allow_private: bool
    connect_to: dict[str, tuple[str, int]]


def port_of(parts: SplitResult) -> int:
    """The port of an address, its scheme's where it names none."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def places_of(url: str, limits: Limits) -> list[tuple[str, int]]:
    """The addresses and port to connect to, in turn; raises Unreachable for an unknown host, Private."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", port_of(parts)
    if host in limits.connect_to:
        return [limits.connect_to[host]]
    return [(address, port) for address in network.checked(host, port, limits.allow_private)]


def _read(response: Any, limits: Limits, started: float) -> tuple[bytes, str | None]:
    """The body within the limits of bytes and time, and by which of them it was cut."""
    parts: list[bytes] = []
    size = 0
    while True:
        problem = None
        try:
            part = response.read1(64 << 10, decode_content=False)
        except (HTTPError, OSError) as error:
            part, problem = b"", "time" if "timed out" in str(error).lower() else "disconnect"
        late = time.monotonic() - started >= limits.timeout_seconds
        parts.append(part)
        size += len(part)
        if size > limits.response_bytes:
            return b"".join(parts)[: limits.response_bytes], "length"
        if not part or late:
            return b"".join(parts), "time" if late else problem


def _ask(url: str, place: tuple[str, int], sent: dict[str, str], limits: Limits) -> Exchange:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    date, started = datetime.now(UTC), time.monotonic()
    pool = network.pool(parts.scheme, parts.hostname or "", *place, limits.timeout_seconds)
    with pool, network.deadline(pool, limits.timeout_seconds):
        response = pool.urlopen(
            "GET", target, headers=sent, redirect=False, preload_content=False, decode_content=False, retries=False
        )
        if time.monotonic() - started >= limits.timeout_seconds:  # the header may have been cut off: it is no answer
            response.close()
            raise Unreachable("timed out before the header's end")
        body, truncated = _read(response, limits, started)
        response.close()
    return Exchange(
        url,
        date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        list(sent.items()),
        target,
        response.status,
        response.reason or "",
        list(response.headers.items()),
        body,
        truncated,
    )


def fetch(url: str, limits: Limits, more: dict[str, str] | None = None) -> Exchange:
    """The answer for an address, asked with ``more`` headers. Redirects are answers like others.

    Raises Unreachable where none came, Private where the host's address is not to be visited.
    """
    sent = {
        "Host": urlsplit(url).netloc.rpartition("@")[2],
        "User-Agent": limits.user_agent,
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
        "Connection": "close",
    } | (more or {})
    places = places_of(url, limits)[:_MOST_ADDRESSES]
    for number, place in enumerate(places, 1):
        try:
            return _ask(url, place, sent, limits)
        except NewConnectionError as error:
            if number == len(places):
                raise Unreachable(f"{type(error).__name__}: {error}") from None
        except (HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from None
    raise Unreachable("no address")
