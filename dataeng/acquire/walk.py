"""The walk of a crawl: every host by itself, breadth first, politely; what came is recorded in one order.

One thread decides and records; others only wait for answers. A host's addresses are taken in chunks of one depth,
sorted, so that a host that answers the same gives the same records in the same order.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from dataeng.acquire import earlier
from dataeng.acquire.archive import Archive
from dataeng.acquire.fetch import REDIRECTS, RETRIED, Exchange, Limits, fetch, places_of
from dataeng.acquire.frontier import PAGE, ROBOTS, SITEMAP, Frontier, Job, Seen
from dataeng.acquire.links import body, host_of, links, normal, site_of, sitemap, target
from dataeng.acquire.network import Private, Unreachable
from dataeng.acquire.remote import retry_after
from dataeng.acquire.robots import LARGEST, Rules
from dataeng.cli import UserError
from dataeng.extract.charset import decode
from dataeng.extract.payload import TooLarge

if TYPE_CHECKING:
    from dataeng.acquire.crawl import Config

log = logging.getLogger("millrace")
_CHUNK = 64  # addresses of one host that are taken at once
_HELD_BYTES = 64 << 20  # of answers of one host that wait for one before them
_COMMIT_SECONDS = 5.0
_MOST_REDIRECTS = 5
_MOST_SITEMAPS, _SITEMAP_LEVELS = 50, 3  # of one host
_LONGEST_PAUSE = 300.0
_MOST_REMEMBERED = 200_000  # addresses


@dataclass
class _Task:
    """An address that is being asked for, and what came."""

    job: Job
    seen: Seen | None = None
    tries: int = 0
    finished: bool = False
    exchange: Exchange | None = None


@dataclass
class _Host:
    """One host's turn: when it may be asked next, what is to be asked, and what is to be recorded, in order."""

    name: str
    rules: Rules | None = None
    free: float = 0.0
    under_way: int = 0
    held_bytes: int = 0
    sitemaps: int = 0
    empty: bool = False  # the frontier had nothing for it, and nothing was added since
    queue: deque[_Task] = field(default_factory=deque)
    order: deque[_Task] = field(default_factory=deque)


class Crawl:
    """A walk over a frontier that may already be half done."""

    def __init__(
        self, config: Config, seeds: Sequence[str], limits: Limits, archive: Archive, frontier: Frontier
    ) -> None:
        self.config, self.limits, self.archive, self.frontier = config, limits, archive, frontier
        self.seeds = sorted({normal(seed) for seed in seeds})
        self.sites = {site_of(seed) for seed in self.seeds}
        self.include = [re.compile(pattern) for pattern in config.include]
        self.exclude = [re.compile(pattern) for pattern in config.exclude]
        self.counts = frontier.counts()
        self.most_known = max(100_000, 50 * config.pages)
        texts = frontier.rules()
        self.hosts = {name: _Host(name) for name in frontier.hosts()}
        for name, text in texts.items():
            self.hosts[name].rules = Rules(text, limits.user_agent)
        self.pages_under_way = 0
        self.known: dict[str, tuple[int, int]] = {}  # what `_add` has seen to lately, so that the frontier is spared
        self.under_way: dict[Future[Exchange], tuple[_Host, _Task]] = {}
        self.committed = time.monotonic()
        self.recording = False

    def run(self) -> Counter[str]:
        """Visit all there is within the limits; counts of pages, failures and refusals.

        Raises UserError where a seed stands in a private network that the recipe does not allow.
        """
        for seed in self.seeds:
            try:
                places_of(seed, self.limits)
            except Private as error:
                raise UserError(f"crawl.seeds: {error}: set crawl.allow_private = true to allow it") from None
            except Unreachable:
                pass  # counted when it is visited
            self._add(seed, 0, 0)
        with ThreadPoolExecutor(self.config.parallel) as pool:
            try:
                while self._turn(pool):
                    pass
            finally:
                if not self.recording:  # else interrupted in between: what came since the last commit is done again
                    self._commit()
        if (left := self.frontier.waiting()) and self._room() <= 0:
            self.counts["beyond crawl.pages"] = left
        self._commit()
        return self.counts

    def _turn(self, pool: ThreadPoolExecutor) -> bool:
        """Ask for what may be asked, take what came; False when nothing is left to do."""
        for host in list(self.hosts.values()):
            self._fill(host)
        pause = self._start(pool)
        if not self.under_way:
            if pause is None:
                return any(host.order or not host.empty for host in self.hosts.values()) and self._room() > 0
            time.sleep(pause)
            return True
        for future in wait(self.under_way, pause, FIRST_COMPLETED).done:
            host, task = self.under_way.pop(future)
            self._finished(host, task, future)
            while host.order and host.order[0].finished:
                self.recording = True
                self._record(host, host.order.popleft())
                self.recording = False
        if time.monotonic() - self.committed >= _COMMIT_SECONDS:
            self._commit()
        return True

    def _commit(self) -> None:
        """Make what was recorded last: first the records, then the frontier that counts them."""
        self.frontier.commit(place=self.archive.commit(), counts=dict(self.counts))
        self.committed = time.monotonic()

    def _room(self) -> int:
        return self.config.pages - self.counts["fetched"] - self.pages_under_way

    # What may be visited

    def _add(self, url: str, depth: int, hops: int) -> None:
        """Let a page wait if it belongs to a seed's site and the recipe's patterns want it."""
        if self.known.get(url, (depth + 1, 0)) <= (depth, hops):
            return  # most links of a site are on each of its pages
        if len(self.known) >= _MOST_REMEMBERED:
            self.known.clear()
        self.known[url] = (depth, hops)
        if site_of(url) not in self.sites or any(rule.search(url) for rule in self.exclude):
            return
        if self.include and url not in self.seeds and not any(rule.search(url) for rule in self.include):
            return
        if self.frontier.size >= self.most_known:
            self.counts["beyond the frontier"] += 1
            return
        name = host_of(url)
        if name not in self.hosts:
            self._add_job(Job(name, urljoin(url, "/robots.txt"), ROBOTS, 0, 0))
        self._add_job(Job(name, url, PAGE, depth, hops))

    def _add_job(self, job: Job) -> bool:
        """Let an address wait; whether it was not known before."""
        host = self.hosts.setdefault(job.host, _Host(job.host))
        if new := self.frontier.add(job):
            host.empty = False
        return new

    def _fill(self, host: _Host) -> None:
        """Take the host's next chunk when the one before is recorded."""
        while not host.order and not host.empty:
            jobs = self.frontier.next(host.name, _CHUNK)
            if not jobs:
                host.empty = True
                return
            if jobs[0].kind == PAGE:
                jobs = self._allowed(host, jobs)
                if (room := self._room()) <= 0:
                    return
                jobs = jobs[:room]
                self.pages_under_way += len(jobs)
            seen = [self.frontier.earlier(job.url) for job in jobs]
            tasks = [_Task(job, old) for job, old in zip(jobs, seen, strict=True)]
            host.order.extend(tasks)
            host.queue.extend(tasks)

    def _allowed(self, host: _Host, jobs: list[Job]) -> list[Job]:
        """Those that the host's robots.txt allows; the others are done with."""
        allowed = []
        for job in jobs:
            if host.rules is not None and host.rules.delay > self.config.longest_delay_seconds:
                self.counts["refused by a long crawl-delay"] += 1
            elif host.rules is not None and host.rules.allow(job.url):
                allowed.append(job)
                continue
            else:
                self.counts["refused by robots.txt"] += 1
            self.frontier.done(job)
        return allowed

    # When it is asked for

    def _delay(self, host: _Host) -> float:
        asked = host.rules.delay if host.rules else 0.0
        return max(self.config.delay_seconds, asked if asked <= self.config.longest_delay_seconds else 0.0)

    def _start(self, pool: ThreadPoolExecutor) -> float | None:
        """Ask for all that may be asked now; seconds until the next may, None where nothing else waits for time."""
        pause: float | None = None
        for host in sorted(self.hosts.values(), key=lambda host: host.free):  # who waited longest comes first
            most = 1 if self._delay(host) else self.config.parallel
            while host.queue and host.under_way < most and len(self.under_way) < self.config.parallel:
                now = time.monotonic()
                if host.free > now:
                    pause = host.free - now if pause is None else min(pause, host.free - now)
                    break
                if host.held_bytes > _HELD_BYTES and host.queue[0] is not host.order[0]:
                    break
                task = host.queue.popleft()
                host.free = now + self._delay(host)
                host.under_way += 1
                self.under_way[pool.submit(self._fetch, task)] = (host, task)
        return pause

    def _fetch(self, task: _Task) -> Exchange:
        asked = earlier.question(task.seen) if task.job.kind == PAGE else {}
        return fetch(task.job.url, self.limits, asked)

    def _finished(self, host: _Host, task: _Task, future: Future[Exchange]) -> None:
        """Take an answer, or put the task back for another try."""
        host.under_way -= 1
        problem, exchange = "", None
        try:
            exchange = future.result()
        except Private as error:
            log.warning("crawl: %s: %s: not visited", task.job.url, error)
            self.counts["refused: private network"] += 1
            task.tries = self.config.retries
        except Unreachable as error:
            problem = str(error)
        if (exchange is None or exchange.status in RETRIED) and task.tries < self.config.retries:
            asked = retry_after(exchange.header("retry-after")) if exchange else None
            pause = 0.5 * 2.0**task.tries if asked is None else asked
            host.free = max(host.free, time.monotonic() + min(pause, _LONGEST_PAUSE))
            task.tries += 1
            waiting = {id(other) for other in (task, *host.queue)}
            host.queue = deque(other for other in host.order if id(other) in waiting)
            return
        if problem:
            log.warning("crawl: %s: %s", task.job.url, problem)
        task.finished, task.exchange = True, exchange
        host.held_bytes += len(exchange.body) if exchange else 0

    # What came of it

    def _record(self, host: _Host, task: _Task) -> None:
        host.held_bytes -= len(task.exchange.body) if task.exchange else 0
        if task.job.kind == ROBOTS:
            self._robots(host, task)
        elif task.job.kind == SITEMAP:
            self._sitemap(host, task)
        else:
            self._page(task)
        self.frontier.done(task.job)

    def _write(self, exchange: Exchange, seen: Seen | None) -> bool:
        """Record an answer; as a revisit, and True, where it is what was seen before."""
        same = exchange.status == 200 and not exchange.truncated and seen and exchange.digest == seen.digest
        if seen and (same or exchange.status == 304):
            self.archive.revisit(exchange, seen)
            return True
        self.archive.write(exchange)
        return False

    def _moved(self, job: Job, exchange: Exchange, most: int = _MOST_REDIRECTS) -> str | None:
        """Where a redirect leads, while there are not too many in a row."""
        if exchange.status not in REDIRECTS or job.hops >= most:
            return None
        location = exchange.header("location") or exchange.url
        with suppress(UnicodeError):
            location = location.encode("latin-1").decode()  # as headers are read, though many servers write UTF-8
        return target(exchange.url, location)

    def _robots(self, host: _Host, task: _Task) -> None:
        """A host's rules (RFC 9309, 2.3.1: 4xx allows all; no answer, 429 and 5xx allow nothing)."""
        exchange, text = task.exchange, None
        if exchange is not None:
            if host_of(exchange.url) == host.name:
                self._write(exchange, task.seen)
            moved = self._moved(task.job, exchange)
            if moved and self._add_job(Job(host.name, moved, ROBOTS, 0, task.job.hops + 1)):
                return  # else a loop: there is none that can be read, as with a 404
            text = _robots_text(exchange)
        if text is None:
            answered = f"answered {exchange.status}" if exchange else "did not answer"
            log.warning("crawl: %s: %s; nothing of this host is visited", task.job.url, answered)
        self.frontier.keep_rules(host.name, text)
        host.rules = Rules(text, self.limits.user_agent)
        if host.rules.delay > self.config.longest_delay_seconds:
            log.warning("crawl: %s: asks for a delay of %.0f s; left alone", host.name, host.rules.delay)
            return
        host.free = max(host.free, time.monotonic() + self._delay(host))
        if self.config.sitemaps and self.config.depth and text is not None:
            usual = ["/sitemap.xml"] if host.rules.allow(host.name + "/sitemap.xml") else []
            self._list_sitemaps(host, host.rules.sitemaps or usual, host.name + "/", 0)

    def _list_sitemaps(self, host: _Host, named: Iterable[str], base: str, level: int) -> None:
        for name in named:
            url = target(base, name)
            if url and site_of(url) in self.sites and host.sitemaps < _MOST_SITEMAPS and level < _SITEMAP_LEVELS:
                host.sitemaps += 1
                self._add_job(Job(host.name, url, SITEMAP, 0, level))

    def _sitemap(self, host: _Host, task: _Task) -> None:
        exchange = task.exchange
        if exchange is None:
            return
        if moved := self._moved(task.job, exchange, _SITEMAP_LEVELS):
            self._list_sitemaps(host, [moved], exchange.url, task.job.hops + 1)
        elif exchange.status == 200:
            self._write(exchange, task.seen)
            pages, more = sitemap(exchange)
            self.counts["in sitemaps"] += len(pages)
            for url in pages:
                self._add(url, 1, 0)
            self._list_sitemaps(host, more, exchange.url, task.job.hops + 1)

    def _page(self, task: _Task) -> None:
        self.pages_under_way -= 1
        self.counts["fetched"] += 1
        exchange, job = task.exchange, task.job
        if exchange is None:
            self.counts["failed"] += 1
            return
        self.counts["recorded"] += 1
        if unchanged := self._write(exchange, task.seen):
            self.counts["unchanged"] += 1
        if moved := self._moved(job, exchange):
            if site_of(moved) not in self.sites:
                self.counts["redirected elsewhere"] += 1
            self._add(moved, job.depth, job.hops + 1)
        page: Exchange | None = exchange
        if unchanged and exchange.status == 304 and task.seen:
            page = earlier.page(job.url, task.seen, self.config.response_bytes)
        if page and page.status == 200 and job.depth < self.config.depth:
            for url in links(page, self.config.response_bytes):
                self._add(url, job.depth + 1, 0)


def _robots_text(exchange: Exchange) -> str | None:
    """The rules that an answer to /robots.txt stands for; None: nothing may be visited."""
    if exchange.status >= 500 or exchange.status == 429:
        return None
    try:
        return decode(body(exchange, 64 * LARGEST)[:LARGEST])[0] if exchange.status == 200 else ""
    except TooLarge:
        return None
