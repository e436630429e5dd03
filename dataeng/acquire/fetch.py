"""One HTTP request under limits: bytes, time, retries with back-off, and no way into private networks."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from dataeng.cli import UserError

_RETRIED = (429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0


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
    body: bytes
    truncated: str | None = None

    def header(self, name: str) -> str:
        """A header of the answer, or ``""``."""
        return next((value for key, value in self.headers if key.lower() == name), "")


class Unreachable(Exception):
    """No answer after all retries; the message says why."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one response. ``connect_to`` maps a host to the address and port that really serve it."""

    user_agent: str
    response_bytes: int
    timeout_seconds: float
    retries: int
    allow_private: bool
    connect_to: dict[str, tuple[str, int]]


def port_of(parts: SplitResult) -> int:
    """The port of an address, its scheme's where it names none."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def address_of(url: str, limits: Limits) -> tuple[str, int]:
    """The address and port to connect to: looked up once and checked, so that a second answer cannot differ.

    Raises Unreachable for an unknown host, UserError for a private one that the recipe does not allow.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", port_of(parts)
    if host in limits.connect_to:
        return limits.connect_to[host]
    try:
        found = [str(item[4][0]) for item in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except OSError as error:
        raise Unreachable(f"{host}: {error}") from None
    if not limits.allow_private:
        private = [address for address in found if not ipaddress.ip_address(address.split("%")[0]).is_global]
        if private:
            raise UserError(
                f"{host}: stands in a private network ({private[0]}): set crawl.allow_private = true to allow it"
            )
    return found[0], port


def _pool(url: str, limits: Limits) -> urllib3.HTTPConnectionPool:
    address, port = address_of(url, limits)
    host = urlsplit(url).hostname or ""
    timeout = urllib3.Timeout(connect=limits.timeout_seconds, read=limits.timeout_seconds)
    if urlsplit(url).scheme == "https":
        return urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, retries=False, assert_hostname=host, server_hostname=host
        )
    return urllib3.HTTPConnectionPool(address, port, timeout=timeout, retries=False)


def _read(response: Any, limits: Limits, started: float) -> tuple[bytes, str | None]:
    """The body within the limits of bytes and time, and by which of them it was cut."""
    parts: list[bytes] = []
    size = 0
    while True:
        left = limits.timeout_seconds - (time.monotonic() - started)
        if left <= 0:
            return b"".join(parts), "time"
        if (connection := getattr(response, "_connection", None)) is not None and connection.sock is not None:
            connection.sock.settimeout(left)
        try:
            part = response.read1(64 << 10, decode_content=False)
        except (HTTPError, OSError, TimeoutError) as error:
            return b"".join(parts), "time" if "timed out" in str(error).lower() else "disconnect"
        if not part:
            return b"".join(parts), None
        parts.append(part)
        size += len(part)
        if size > limits.response_bytes:
            return b"".join(parts)[: limits.response_bytes], "length"


def _once(url: str, limits: Limits) -> Exchange:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    sent = {
        "Host": host,
        "User-Agent": limits.user_agent,
        "Accept": "*/*",
        "Accept-Encoding": "gzip",
        "Connection": "close",
    }
    date, started = datetime.now(UTC), time.monotonic()
    with _pool(url, limits) as pool:
        response = pool.urlopen(
            "GET", target, headers=sent, redirect=False, preload_content=False, decode_content=False, retries=False
        )
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


def _pause(exchange: Exchange | None, attempt: int) -> float:
    """Seconds before the next try: what Retry-After asks for, else doubling from half a second."""
    asked = exchange.header("retry-after") if exchange else ""
    if asked.isdigit():
        return min(float(asked), _LONGEST_PAUSE)
    if asked:
        try:
            return min(max((parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_PAUSE)
        except (TypeError, ValueError):
            pass
    return min(0.5 * 2.0**attempt, _LONGEST_PAUSE)


def fetch(url: str, limits: Limits, sleep: Callable[[float], None] = time.sleep) -> Exchange:
    """The answer for an address; busy servers and broken connections are tried again ``retries`` times.

    Redirects are answers like others. Raises Unreachable where no answer came at all.
    """
    exchange: Exchange | None = None
    problem = ""
    for attempt in range(limits.retries + 1):
        if attempt:
            sleep(_pause(exchange, attempt - 1))
        try:
            exchange = _once(url, limits)
        except (HTTPError, OSError, Unreachable) as error:
            exchange, problem = None, f"{type(error).__name__}: {error}"
            continue
        if exchange.status not in _RETRIED:
            return exchange
    if exchange is None:
        raise Unreachable(problem)
    return exchange
