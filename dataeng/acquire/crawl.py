"""Step `crawl`: a polite crawler of a few hosts that writes WARC/1.1.

``python -m dataeng.acquire.crawl RECIPE [KEY=VALUE …]``
"""

from __future__ import annotations

import logging
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

from lxml import etree, html
from protego import Protego
from pydantic import Field, field_validator

from dataeng import stage, storage
from dataeng.acquire import pydoc_site
from dataeng.acquire.archive import Archive
from dataeng.acquire.fetch import Exchange, Limits, Unreachable, fetch, port_of
from dataeng.cli import UserError
from dataeng.extract.charset import decode
from dataeng.extract.payload import Message, TooLarge, body_of
from dataeng.recipe import Recipe, Table, main_with_recipe, runtime
from dataeng.stage import Manifest

log = logging.getLogger("millrace")
EMBEDDED = "pydoc:"
_MOST_REDIRECTS = 5


class Config(Table):
    """Table `crawl`: where to begin, how far to go, and how politely."""

    version: ClassVar[int] = 1

    seeds: list[str] = Field(
        min_length=1, description='Addresses to begin at; only their hosts are visited. "pydoc:" is the embedded site'
    )
    include: list[str] = Field([], description="Regular expressions; where there are any, an address must match one")
    exclude: list[str] = Field([], description="Regular expressions; an address that matches one is not visited")
    depth: int = Field(3, ge=0, description="Links followed from a seed")
    pages: int = Field(1000, ge=1, description="Most addresses that are fetched")
    delay_seconds: float = runtime(
        1.0, ge=0, description="Seconds between requests to one host; robots.txt may ask for more"
    )
    parallel: int = runtime(2, ge=1, le=64, description="Requests under way at once")
    retries: int = Field(3, ge=0, le=10, description="Further tries after 429, 5xx and broken connections")
    response_bytes: int = Field(8 << 20, ge=1, description="Bytes of one body; the rest is cut off (WARC-Truncated)")
    timeout_seconds: float = Field(30.0, gt=0, description="Seconds for one response from connecting to its last byte")
    user_agent: str = Field(
        "millrace/0.1 (web crawler of the millrace project)", min_length=1, description="User-Agent"
    )
    allow_private: bool = Field(False, description="Visit loopback and private networks too")

    @field_validator("seeds")
    @classmethod
    def _addresses(cls, seeds: list[str]) -> list[str]:
        for seed in seeds:
            parts = urlsplit(seed)
            if seed != EMBEDDED and (parts.scheme not in ("http", "https") or not parts.hostname):
                raise ValueError(f"{seed}: a seed is an http:// or https:// address, or {EMBEDDED}")
        return seeds

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern}: is no regular expression: {error}") from None
        return patterns


def normal(url: str) -> str:
    """An address as the crawler compares it: no fragment, no default port, lower-case host, a path."""
    parts = urlsplit(urldefrag(url).url.strip())
    host = (parts.hostname or "").lower()
    default = 443 if parts.scheme == "https" else 80
    if parts.port and parts.port != default:
        host = f"{host}:{parts.port}"
    return urlunsplit((parts.scheme.lower(), host, parts.path or "/", parts.query, ""))


def _host(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", port_of(parts)


def links(exchange: Exchange, most: int) -> list[str]:
    """The addresses that an HTML page links to, normal and sorted."""
    content_type = exchange.header("content-type")
    headers = {key.lower(): value for key, value in exchange.headers if key.lower() != "transfer-encoding"}
    if "html" not in content_type.lower():
        return []
    try:
        text, _ = decode(body_of(Message(exchange.status, headers, exchange.body), most), content_type)
        tree = html.document_fromstring(text.replace("\0", ""))
    except (TooLarge, etree.LxmlError, ValueError):
        return []
    base = next(iter(tree.xpath("//base[@href]/@href")), "")
    found = set()
    for target in tree.xpath("//a[@href]/@href | //area[@href]/@href"):
        try:
            url = normal(urljoin(urljoin(exchange.url, base), target))
        except ValueError:
            continue
        if url.startswith(("http://", "https://")):
            found.add(url)
    return sorted(found)


class _Robots:
    """The robots.txt of each host, fetched once (RFC 9309: 4xx allows all, no answer allows nothing)."""

    def __init__(self, limits: Limits, archive: Archive) -> None:
        self.limits, self.archive = limits, archive
        self.rules: dict[tuple[str, str, int], Protego | None] = {}

    def fetch(self, url: str) -> None:
        """Read the robots.txt of an address's host, if that has not been done."""
        host = _host(url)
        if host in self.rules:
            return
        robots = urljoin(url, "/robots.txt")
        self.rules[host] = None
        try:
            answer = fetch(robots, self.limits)
            for _ in range(_MOST_REDIRECTS):
                if answer.status not in (301, 302, 303, 307, 308):
                    break
                answer = fetch(normal(urljoin(answer.url, answer.header("location"))), self.limits)
        except Unreachable as error:
            log.warning("crawl: %s: %s; nothing of this host is visited", robots, error)
            return
        self.archive.write(answer)
        if answer.status >= 500:
            log.warning("crawl: %s: answered %d; nothing of this host is visited", robots, answer.status)
            return
        self.rules[host] = Protego.parse(decode(answer.body)[0] if answer.status == 200 else "")

    def allow(self, url: str) -> bool:
        """Whether the host's rules allow an address."""
        rules = self.rules.get(_host(url))
        return rules is not None and bool(rules.can_fetch(url, self.limits.user_agent))

    def delay(self, url: str) -> float:
        """Seconds between requests that the host asks for."""
        rules = self.rules.get(_host(url))
        return float((rules and rules.crawl_delay(self.limits.user_agent)) or 0.0)


@dataclass
class _Turns:
    """Hands out each host's next free moment."""

    free: dict[tuple[str, str, int], float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, url: str, delay: float) -> None:
        """Sleep until the host may be asked again."""
        if delay <= 0:
            return
        with self.lock:
            moment = max(self.free.get(_host(url), 0.0), time.monotonic())
            self.free[_host(url)] = moment + delay
        time.sleep(max(0.0, moment - time.monotonic()))


class Crawl:
    """A breadth-first walk in rounds; each round's addresses are sorted, so records come in one order."""

    def __init__(self, config: Config, seeds: Sequence[str], limits: Limits, archive: Archive) -> None:
        self.config, self.limits, self.archive = config, limits, archive
        self.robots, self.turns = _Robots(limits, archive), _Turns()
        self.seeds = sorted({normal(seed) for seed in seeds})
        self.hosts = {_host(seed) for seed in self.seeds}
        self.seen: set[str] = set()
        self.counts: Counter[str] = Counter()

    def run(self) -> Counter[str]:
        """Visit all there is within the limits; counts of pages, failures and refusals."""
        for seed in self.seeds:
            self.robots.fetch(seed)
        rounds = [(self.seeds, 0, 0)]
        while rounds:
            urls, depth, hops = rounds.pop(0)
            targets, linked = self._round([url for url in urls if self._wanted(url)])
            if targets and hops < _MOST_REDIRECTS:
                rounds.insert(0, (targets, depth, hops + 1))
            if linked and depth < self.config.depth:
                rounds.append((linked, depth + 1, 0))
        return self.counts

    def _wanted(self, url: str) -> bool:
        """Whether an address is new and may be visited; it is never asked about again."""
        if url in self.seen or _host(url) not in self.hosts:
            return False
        self.seen.add(url)
        include, exclude = self.config.include, self.config.exclude
        if any(re.search(pattern, url) for pattern in exclude):
            return False
        if url not in self.seeds and include and not any(re.search(pattern, url) for pattern in include):
            return False
        if not self.robots.allow(url):
            self.counts["refused by robots.txt"] += 1
            return False
        return True

    def _round(self, urls: list[str]) -> tuple[list[str], list[str]]:
        """Fetch and record one round; gives the targets of redirects and the links found."""
        room = self.config.pages - self.counts["fetched"]
        if len(urls) > room:
            self.counts["beyond crawl.pages"] += len(urls) - room
        targets, linked = set(), set()
        with ThreadPoolExecutor(self.config.parallel) as pool:
            for start in range(0, max(0, min(room, len(urls))), 64):
                for exchange in pool.map(self._fetch, urls[start : min(start + 64, room)]):
                    self.counts["fetched"] += 1
                    if exchange is None:
                        self.counts["failed"] += 1
                        continue
                    self.archive.write(exchange)
                    self.counts["recorded"] += 1
                    if 300 <= exchange.status < 400 and exchange.header("location"):
                        targets.add(normal(urljoin(exchange.url, exchange.header("location"))))
                    elif exchange.status == 200:
                        linked.update(links(exchange, self.config.response_bytes))
        return sorted(targets), sorted(linked)

    def _fetch(self, url: str) -> Exchange | None:
        self.turns.wait(url, max(self.config.delay_seconds, self.robots.delay(url)))
        try:
            return fetch(url, self.limits)
        except Unreachable as error:
            log.warning("crawl: %s: %s", url, error)
            return None


@contextmanager
def _places(config: Config) -> Iterator[tuple[list[str], dict[str, tuple[str, int]]]]:
    """The seeds as addresses, and where the embedded site really listens."""
    if EMBEDDED not in config.seeds:
        yield config.seeds, {}
        return
    with pydoc_site.serve() as port:
        seeds = [f"http://{pydoc_site.HOST}/" if seed == EMBEDDED else seed for seed in config.seeds]
        yield seeds, {pydoc_site.HOST: ("127.0.0.1", port)}


def run_crawl(config: Config, path: Path) -> Counter[str]:
    """Crawl into a WARC file; raises UserError where nothing answered."""
    with _places(config) as (seeds, connect_to), path.open("wb") as file:
        limits = Limits(
            config.user_agent,
            config.response_bytes,
            config.timeout_seconds,
            config.retries,
            config.allow_private,
            connect_to,
        )
        archive = Archive(file, config.user_agent, stable=tuple(connect_to))
        counts = Crawl(config, seeds, limits, archive).run()
    if not counts["recorded"]:
        raise UserError(f"crawl.seeds = {config.seeds}: nothing could be fetched: check the addresses and robots.txt")
    return counts


def step(recipe: Recipe) -> Manifest:
    """Publish `crawl-00000.warc.gz` as the table `captures`; a finished crawl is not repeated."""
    config: Config = recipe.need("crawl")
    attempt = stage.begin(recipe, "crawl", [])
    if isinstance(attempt, Manifest):
        return attempt
    log.info("crawl: %s, at most %d pages", ", ".join(config.seeds), config.pages)
    with tempfile.TemporaryDirectory(prefix="millrace-crawl-") as folder:
        local = Path(folder, "crawl-00000.warc.gz")
        counts = run_crawl(config, local)
        size = local.stat().st_size
        storage.upload(local, storage.join(attempt.data_folder, local.name))
    table = stage.file_table(attempt.folder, [storage.join(attempt.data_folder, "crawl-00000.warc.gz")])
    details: dict[str, Any] = {"bytes": size, **dict(sorted(counts.items()))}
    manifest = attempt.publish(
        attempt.manifest(tables={"captures": table}, counts={"pages": counts["recorded"]}, details=details)
    )
    log.info("crawl: %d pages, %.1f MB in %.1f s", counts["recorded"], size / 1e6, manifest.seconds)
    return manifest


def main() -> None:
    """Entry point of ``python -m dataeng.acquire.crawl``."""
    main_with_recipe(lambda recipe: (step(recipe), None)[1])


if __name__ == "__main__":
    from dataeng.acquire import crawl  # the module under its own name: config classes must be the same objects

    crawl.main()
