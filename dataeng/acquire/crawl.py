"""Step `crawl`: a polite crawler of a few hosts that writes WARC/1.1 and goes on where it was killed.

``python -m dataeng.acquire.crawl RECIPE [KEY=VALUE …]``
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dataeng import stage, storage
from dataeng.acquire import earlier, pydoc_site
from dataeng.acquire.archive import Archive
from dataeng.acquire.fetch import Limits
from dataeng.acquire.frontier import Frontier
from dataeng.acquire.partial import clear, folder_for, held, place
from dataeng.acquire.walk import Crawl
from dataeng.cli import UserError
from dataeng.manifest import TableEntry
from dataeng.recipe import Recipe, Table, main_with_recipe, runtime
from dataeng.stage import Attempt, Manifest

log = logging.getLogger("millrace")
EMBEDDED = "pydoc:"
_NAME = re.compile(r"/crawl-(?:(\d+)-)?\d+\.warc\.gz$")


class Config(Table):
    """Table `crawl`: where to begin, how far to go, and how politely."""

    version: ClassVar[int] = 2

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
    longest_delay_seconds: float = Field(
        120.0, gt=0, description="A host that asks for a longer delay is left alone: it does not want to be crawled"
    )
    sitemaps: bool = Field(True, description="Visit what sitemaps list: those in robots.txt, else /sitemap.xml")
    retries: int = Field(3, ge=0, le=10, description="Further tries after 429, 5xx and broken connections")
    response_bytes: int = Field(8 << 20, ge=1, description="Bytes of one body; the rest is cut off (WARC-Truncated)")
    timeout_seconds: float = Field(30.0, gt=0, description="Seconds for one response from connecting to its last byte")
    user_agent: str = Field(
        "millrace/0.1 (web crawler of the millrace project)", min_length=1, description="User-Agent"
    )
    allow_private: bool = Field(
        False, description="Visit loopback, private and link-local addresses too (the embedded site needs no leave)"
    )
    file_bytes: int = Field(
        1_000_000_000, ge=1, description="A WARC file that has so many bytes is followed by another"
    )
    visit: int = Field(
        1, ge=1, description="Raise it to crawl again: unchanged pages are recorded as such, earlier captures stay"
    )
    scratch: str | None = runtime(None, description="Local folder of an unfinished crawl; by default below the stage")

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


@contextmanager
def _places(config: Config) -> Iterator[tuple[list[str], dict[str, tuple[str, int]]]]:
    """The seeds as addresses, and where the embedded site really listens."""
    if EMBEDDED not in config.seeds:
        yield config.seeds, {}
        return
    with pydoc_site.serve() as port:
        seeds = [f"http://{pydoc_site.HOST}/" if seed == EMBEDDED else seed for seed in config.seeds]
        yield seeds, {pydoc_site.HOST: ("127.0.0.1", port)}


def prefix_of(visit: int) -> str:
    """How the files of a visit begin."""
    return "crawl" if visit == 1 else f"crawl-{visit}"


def _place_of(fact: Any) -> tuple[int, int] | None:
    return (int(fact[0]), int(fact[1])) if isinstance(fact, list) else None


def run_crawl(config: Config, folder: Path, before: Sequence[str] = ()) -> tuple[list[Path], Counter[str]]:
    """Crawl into WARC files in ``folder``, going on with what stands there; the files, and counts.

    ``before`` are capture files of earlier visits. Raises UserError where nothing answered.
    """
    with _places(config) as (seeds, connect_to), closing(Frontier(folder / "frontier.sqlite")) as frontier:
        limits = Limits(
            config.user_agent, config.response_bytes, config.timeout_seconds, config.allow_private, connect_to
        )
        archive = Archive(folder, prefix_of(config.visit), config.user_agent, config.file_bytes, tuple(connect_to))
        where = _place_of(frontier.fact("place"))
        archive.open(where)
        with closing(archive):
            if where is None and before:
                log.info("crawl: %d pages are known from earlier visits", earlier.remember(frontier, before))
            elif where is not None:
                log.info("crawl: goes on after %d pages", frontier.counts()["fetched"])
            counts = Crawl(config, seeds, limits, archive, frontier).run()
    if not counts["recorded"]:
        raise UserError(f"crawl.seeds = {config.seeds}: nothing could be fetched: check the addresses and robots.txt")
    return archive.files(), counts


def _before(recipe: Recipe, config: Config, name: str) -> TableEntry:
    """The captures of earlier visits among those of the published manifest."""
    folder = stage.folder_of(recipe.root, name)
    found = stage.read_manifest(folder)
    table = found[0].tables.get("captures", TableEntry()) if found else TableEntry()
    earlier = [file.path for file in table.files if _visit_of(file.path) < config.visit]
    if len(earlier) == len(table.files):
        return table
    return stage.file_table(folder, [storage.join(folder, path) for path in earlier])


def _visit_of(path: str) -> int:
    """The visit whose file this is, by its name."""
    found = _NAME.search(path)
    return int(found[1] or 1) if found else 1


def _publish(attempt: Attempt, files: Sequence[Path], counts: Counter[str], before: TableEntry) -> Manifest:
    """Publish a visit's files beside those of earlier ones."""
    targets = [storage.join(attempt.data_folder, path.name) for path in files]
    for path, target in zip(files, targets, strict=True):
        place(path, target)
    own = stage.file_table(attempt.folder, targets)
    table = TableEntry(hash=stage.add_hashes([before.hash, own.hash]), files=[*before.files, *own.files])
    size = sum(file.bytes for file in own.files)
    details: dict[str, Any] = {"bytes": size, "files": len(files), **dict(sorted(counts.items()))}
    manifest = attempt.publish(
        attempt.manifest(tables={"captures": table}, counts={"pages": counts["recorded"]}, details=details)
    )
    log.info(
        "crawl: %d pages (%d unchanged), %.1f MB in %.1f s",
        counts["recorded"],
        counts["unchanged"],
        size / 1e6,
        manifest.seconds,
    )
    return manifest


def step(recipe: Recipe, name: str = "crawl") -> Manifest:
    """Publish WARC files as the table `captures`; a finished crawl is not repeated, a killed one goes on."""
    config: Config = recipe.need(name)
    before = _before(recipe, config, name)
    attempt = stage.begin(recipe, name, [])
    if isinstance(attempt, Manifest):
        return attempt
    log.info("crawl: %s, at most %d pages", ", ".join(config.seeds), config.pages)
    folder = folder_for(attempt.folder, attempt.fingerprint[:16], config.scratch)
    with held(folder):
        try:
            captures = [storage.join(attempt.folder, file.path) for file in before.files]
            files, counts = run_crawl(config, folder, captures)
        except UserError:
            clear(folder)  # a frontier whose seeds have failed would be found done
            raise
        manifest = _publish(attempt, files, counts, before)
        clear(folder)
    return manifest


def _all(recipe: Recipe) -> None:
    for name in recipe.tables_of("crawl"):
        step(recipe, name)


def main() -> None:
    """Entry point of ``python -m dataeng.acquire.crawl``: every table of this step."""
    main_with_recipe(_all)


if __name__ == "__main__":
    from dataeng.acquire import crawl  # the module under its own name: config classes must be the same objects

    crawl.main()
