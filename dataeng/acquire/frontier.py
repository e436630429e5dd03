"""Which addresses wait and which are done, on disk: a killed crawl goes on where its last commit stands."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROBOTS, SITEMAP, PAGE = "robots", "sitemap", "page"
_DEPTHS = {ROBOTS: -2, SITEMAP: -1}  # before all pages
_TABLES = """
CREATE TABLE IF NOT EXISTS urls (host TEXT, url TEXT, kind TEXT, depth INT, hops INT, done INT DEFAULT 0,
                                 PRIMARY KEY (host, url, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS turns ON urls (host, done, depth, hops, url);
CREATE TABLE IF NOT EXISTS rules (host TEXT PRIMARY KEY, text TEXT);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS earlier (url TEXT PRIMARY KEY, digest TEXT, etag TEXT, modified TEXT, date TEXT, id TEXT,
                                    path TEXT, start INT, length INT) WITHOUT ROWID;
"""


class Job(NamedTuple):
    """An address that waits. ``depth``: links from a seed; ``hops``: redirects (or sitemap indexes) on the way."""

    host: str
    url: str
    kind: str
    depth: int
    hops: int


class Seen(NamedTuple):
    """What an earlier visit holds of an address: digest, validators, date and id, and the record's place."""

    digest: str
    etag: str
    modified: str
    date: str
    id: str
    path: str
    start: int
    length: int


class Frontier:
    """The crawl's state in one SQLite file. All that stands between two commits is forgotten in a crash."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(path)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.connection.executescript(_TABLES)
        self.size = int(str(self._one("SELECT count(*) FROM urls")))

    def _one(self, query: str, *values: object) -> object:
        row = self.connection.execute(query, values).fetchone()
        return row[0] if row else None

    def add(self, job: Job) -> bool:
        """Let an address wait; one that waits already comes earlier if the new way to it is shorter. True if new."""
        depth = _DEPTHS.get(job.kind, job.depth)
        row = (job.host, job.url, job.kind, depth, job.hops)
        made = self.connection.execute(
            "INSERT INTO urls (host, url, kind, depth, hops) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row
        )
        if made.rowcount:
            self.size += 1
            return True
        self.connection.execute(
            "UPDATE urls SET depth = ?, hops = ?"
            " WHERE host = ? AND url = ? AND kind = ? AND done = 0 AND (depth, hops) > (?, ?)",
            (depth, job.hops, job.host, job.url, job.kind, depth, job.hops),
        )
        return False

    def next(self, host: str, most: int) -> list[Job]:
        """The host's next addresses, all of one depth and one number of hops, sorted."""
        rows = self.connection.execute(
            "SELECT host, url, kind, depth, hops FROM urls WHERE host = ? AND done = 0"
            " ORDER BY depth, hops, url LIMIT ?",
            (host, most),
        )
        jobs = [Job(*row) for row in rows]
        return [job for job in jobs if (job.depth, job.hops) == (jobs[0].depth, jobs[0].hops)]

    def done(self, job: Job) -> None:
        """The address does not wait any more."""
        self.connection.execute("UPDATE urls SET done = 1 WHERE host = ? AND url = ? AND kind = ?", job[:3])

    def hosts(self) -> list[str]:
        """All hosts of which addresses are known."""
        return [row[0] for row in self.connection.execute("SELECT DISTINCT host FROM urls ORDER BY host")]

    def waiting(self) -> int:
        """How many pages wait."""
        return int(str(self._one("SELECT count(*) FROM urls WHERE done = 0 AND kind = ?", PAGE)))

    def keep_rules(self, host: str, text: str | None) -> None:
        """Remember a host's robots.txt (None: nothing of it may be visited)."""
        self.connection.execute("INSERT OR REPLACE INTO rules VALUES (?, ?)", (host, text))

    def rules(self) -> dict[str, str | None]:
        """The robots.txt of each host that has been asked for it."""
        return dict(self.connection.execute("SELECT host, text FROM rules"))

    def fact(self, name: str) -> object:
        """A value kept by ``commit``, or None."""
        value = self._one("SELECT value FROM facts WHERE name = ?", name)
        return None if value is None else json.loads(str(value))

    def commit(self, **facts: object) -> None:
        """Make all that happened so far last, with some facts."""
        for name, value in facts.items():
            self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))
        self.connection.commit()

    def counts(self) -> Counter[str]:
        """The counts that the last commit kept."""
        found = self.fact("counts")
        return Counter(found if isinstance(found, dict) else {})

    def note_earlier(self, url: str, seen: Seen) -> None:
        """Remember what an earlier visit holds; the later of two stays."""
        self.connection.execute(f"INSERT OR REPLACE INTO earlier VALUES (?{', ?' * len(seen)})", (url, *seen))

    def earlier(self, url: str) -> Seen | None:
        """What an earlier visit holds of an address."""
        row = self.connection.execute("SELECT * FROM earlier WHERE url = ?", (url,)).fetchone()
        return Seen(*row[1:]) if row else None

    def close(self) -> None:
        """Close without a commit."""
        self.connection.close()
