"""Which addresses a crawler may connect to, and connections that end when their time is up.

A host's name is looked up once, every address checked, and the checked address is the one connected to:
a name server that answers otherwise the second time gains nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


class Unreachable(Exception):
    """No answer came; the message says why."""


class Private(Exception):
    """The host stands in a private network, and the recipe does not allow that."""


def is_public(address: str) -> bool:
    """Whether an IP address can be reached from anywhere: no loopback, private, link-local or multicast range.

    IPv6 forms that carry an IPv4 address (mapped, 6to4, Teredo, NAT64) are judged by that one.
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def lookup(host: str, port: int) -> list[str]:
    """The addresses of a host, each once, in the order in which they should be tried; raises Unreachable."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{host}: {error}") from None
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def checked(host: str, port: int, allow_private: bool) -> list[str]:
    """The addresses of a host, all of them public unless the recipe allows others; raises Private, Unreachable."""
    found = lookup(host, port)
    if not allow_private and (private := [address for address in found if not is_public(address)]):
        raise Private(f"{host}: stands in a private network ({private[0]})")
    return found


def pool(scheme: str, host: str, address: str, port: int, seconds: float) -> urllib3.HTTPConnectionPool:
    """A pool of connections to one address, in which a certificate must be the host's."""
    timeout = urllib3.Timeout(connect=min(seconds, 20.0), read=seconds)
    if scheme == "https":
        return urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, retries=False, assert_hostname=host, server_hostname=host
        )
    return urllib3.HTTPConnectionPool(address, port, timeout=timeout, retries=False)


@contextmanager
def deadline(connections: urllib3.HTTPConnectionPool, seconds: float) -> Iterator[None]:
    """Shut the pool's connections after so many seconds, whatever they wait for: a handshake, a header's next byte."""
    kind: Any = connections.ConnectionCls
    doubles: list[socket.socket] = []  # a double outlives the wrapping in TLS; shutting it shuts the connection
    over = threading.Event()

    def shut() -> None:
        over.set()
        for double in tuple(doubles):
            with contextlib.suppress(OSError):
                double.shutdown(socket.SHUT_RDWR)

    def make(*arguments: Any, **named: Any) -> Any:
        connection = kind(*arguments, **named)
        connect = connection._new_conn

        def watched() -> socket.socket:
            opened: socket.socket = connect()
            doubles.append(opened.dup())
            if over.is_set():
                shut()
            return opened

        connection._new_conn = watched
        return connection

    connections.ConnectionCls = make  # type: ignore[assignment]
    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for double in doubles:
            double.close()
