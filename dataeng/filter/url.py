"""Addresses: block lists of domains and of pages, words, hosts that are bare IP addresses; a user's allow list wins.

A listed domain stands for itself and every name below it (``example.com`` blocks ``a.example.com``
and not ``badexample.com``); a listed page (an entry with a slash) for itself and what stands below
its path. Hosts are compared in lower case and punycode, without user, port and dots at their end.
Needs no text: ``verdict(url, config)`` decides before a page is fetched or extracted.

Lists are held as sorted 64-bit hashes: 8 bytes an entry (5 million: 40 MB a process). An address
that no list has is taken for a listed one once in 10^11 at that size.
"""

from __future__ import annotations

import gzip
import ipaddress
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from io import BytesIO
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
from pydantic import Field

from dataeng import storage
from dataeng.cli import UserError
from dataeng.document import Document, Verdict
from dataeng.filter import bounds
from dataeng.filter.bounds import Limit
from dataeng.recipe import Table, content

_IN_FOLDERS = ("/domains", "/urls", "/domains.gz", "/urls.gz", ".txt", ".txt.gz")
_NUMBERS = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}")  # IPv4 as browsers read it
_PLAIN = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\n?")  # an entry that is as hosts are compared
_SIGNS = re.compile(r"[\W_]+")
_LONGEST, _LABELS, _SEGMENTS = 4096, 20, 20  # what is looked at of an address: characters, labels, segments


class Config(Table):
    """Table `filter.url`."""

    lists: list[str] = content(
        [],
        description="Block lists: files, patterns or folders of files named domains, urls (as UT1 has them) or *.txt,"
        " local or s3://; a domain or an address a line, # begins a comment",
    )
    words: list[str] = Field([], description="Addresses with one of these words, between signs, are dropped")
    substrings: list[str] = Field([], description="Addresses with one of these strings anywhere are dropped")
    ip_hosts: bool = Field(True, description="Keep addresses whose host is a bare IP address")
    allow: list[str] = Field([], description="Domains, with all below them, that no rule here drops")

    def files(self) -> list[str]:
        """Every file of the lists; raises UserError for one that is missing or has no entry."""
        found = [entry.path for path in self.lists for _, entry in storage.expand(path, _IN_FOLDERS)]
        for path in found:
            if next(_entries(path), None) is None:
                raise UserError(f"{path}: filter.url.lists names it, but it has no entry: fill it or leave it out")
        return found

    @cached_property
    def allowed(self) -> frozenset[str]:
        """The domains of the allow list as hosts are compared."""
        return frozenset(normal_host(domain) for domain in self.allow)


class Address(NamedTuple):
    """What an address is compared by: its host and its path with query, without a slash at the end."""

    host: str
    path: str


def normal_host(host: str) -> str:
    """A host in lower case and punycode, without ``*.`` and dots around it."""
    host = unquote(host).strip().lower().removeprefix("*.").strip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:  # a label that is empty or too long: no such domain can be registered
        return host


def parse(url: str) -> Address | None:
    """An address's host and path; None where it has no host. Scheme, user, port and fragment are left out."""
    url = url.strip()[:_LONGEST]
    try:
        parts = urlsplit(url if "//" in url.partition("?")[0] else f"//{url}")
        host = normal_host(parts.hostname or "")
    except ValueError:  # brackets that hold no IPv6 address
        return None
    path = parts.path.rstrip("/") + (f"?{parts.query}" if parts.query else "")
    return Address(host, path) if host else None


def is_ip(host: str) -> bool:
    """Whether a host is an IP address: IPv6, or IPv4 in any notation that browsers take."""
    if _NUMBERS.fullmatch(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _lines(path: str) -> Iterator[str]:
    data = storage.read_bytes(path)
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as gzip: {error}") from None
    for line in BytesIO(data):
        yield line.decode("utf-8", "replace")


def _entries(path: str) -> Iterator[str]:
    """The entries of a list, each as ``host`` or ``host/path``; lines of hosts files are taken by their name."""
    for line in _lines(path):
        if _PLAIN.fullmatch(line):  # nearly all lines of a long list
            yield line.rstrip()
            continue
        words = line.partition("#")[0].split()
        if not words:
            continue
        address = parse(words[1] if len(words) > 1 and is_ip(words[0]) else words[0])
        if address:
            yield address.host + address.path


def _hash(entry: str) -> int:
    return int.from_bytes(blake2b(entry.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@lru_cache(maxsize=2)
def load(lists: tuple[str, ...]) -> np.ndarray:
    """The hashes of all entries of the lists, uint64, sorted; once a process."""
    files = Config.model_validate({"lists": lists}).files()
    hashes = (_hash(entry) for path in files for entry in _entries(path))
    return np.unique(np.fromiter(hashes, np.uint64))


def _domains(host: str) -> list[str]:
    """The host and the domains that it stands below; of an IP address (no domain ends in a number) itself alone."""
    labels = [] if ":" in host or host.rpartition(".")[2].isdigit() else host.split(".")[-_LABELS:]
    return [host, *(".".join(labels[k:]) for k in range(1, len(labels)))]


def _pages(address: Address) -> list[str]:
    """The entries that may list a page: its own address, and the paths that it stands below."""
    host, plain = address.host, address.path.partition("?")[0]
    segments = plain.split("/")[: _SEGMENTS + 1]
    paths = [address.path, *("/".join(segments[: k + 1]) for k in range(1, len(segments)))]
    hosts = dict.fromkeys((host, host.removeprefix("www.")))
    return [one + path for one in hosts for path in dict.fromkeys(paths) if path]


def _listed(candidates: list[str], hashes: np.ndarray) -> str | None:
    """The first candidate that a list has."""
    if not hashes.size:
        return None
    sought = np.array([_hash(one) for one in candidates], np.uint64)
    places = np.minimum(np.searchsorted(hashes, sought), hashes.size - 1)
    found = np.flatnonzero(hashes[places] == sought)
    return candidates[found[0]] if found.size else None


def reasons(url: str | None, config: Config) -> dict[str, str]:
    """Why an address is blocked: by rule (domain, page, word, ip_host) what matched; empty where it is not."""
    address = parse(url) if url else None
    if address is None or not config.allowed.isdisjoint(_domains(address.host)):
        return {}
    hashes = load(tuple(config.lists)) if config.lists else np.empty(0, np.uint64)
    lowered = unquote(address.host + address.path).lower()
    words = set(_SIGNS.split(lowered)) if config.words else set()
    said = [word for word in config.words if word.lower() in words]
    said += [part for part in config.substrings if part.lower() in lowered]
    matched = {
        "domain": _listed(_domains(address.host), hashes),
        "page": _listed(_pages(address), hashes) if address.path else None,
        "word": said[0] if said else None,
        "ip_host": address.host if not config.ip_hosts and is_ip(address.host) else None,
    }
    return {rule: match for rule, match in matched.items() if match is not None}


def says(found: dict[str, str]) -> str:
    """Reasons as ``metadata["url_blocked"]`` has them, such as ``domain example.com``."""
    return ", ".join(f"{rule} {match}" for rule, match in found.items())


def transform(document: Document, config: Config) -> Document:
    """The document with what matched in ``metadata["url_blocked"]``, such as ``domain example.com``."""
    found = reasons(document.url, config)
    if not found:
        return document
    return replace(document, metadata=document.metadata | {"url_blocked": says(found)})


def scores(document: Document, config: Config) -> dict[str, float]:
    """``url.domain``, ``url.page``, ``url.word``, ``url.ip_host``: 1 where the rule blocks; none without an address."""
    return _scores(document.url, config)


def _scores(url: str | None, config: Config) -> dict[str, float]:
    found = reasons(url, config)
    return {} if url is None else {limit.score: float(limit.score[4:] in found) for limit in limits(config)}


def limits(config: Config) -> list[Limit]:
    """The bounds in their order: those of lists first."""
    return [Limit(f"url.{rule}", "max", 0) for rule in ("domain", "page", "word", "ip_host")]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """The first bound that fails."""
    return bounds.decide(found, limits(config))


def verdict(url: str | None, config: Config) -> Verdict:
    """The verdict on an address alone, the same as on its document: for steps that come before the text."""
    return decide(_scores(url, config), config)
