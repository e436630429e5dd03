"""Step `common_crawl`: captures of a Common Crawl snapshot, whole files or single records.

``python -m dataeng.acquire.common_crawl RECIPE [KEY=VALUE …]``
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dataeng import slices, stage, storage
from dataeng.acquire import cc_index
from dataeng.acquire.cc_index import Place, Wanted
from dataeng.acquire.download import Bounds, download
from dataeng.acquire.partial import clear, folder_for, held, place
from dataeng.acquire.remote import Manners, Pauses, Source, read, read_whole, source_of
from dataeng.cli import UserError
from dataeng.document import digest
from dataeng.recipe import Recipe, Table, main_with_recipe, runtime
from dataeng.stage import Attempt, Manifest

log = logging.getLogger("millrace")
_LISTING_BYTES = 64 << 20  # of a snapshot's list of files, packed; today's have about 0.2 MB
_BATCH_RECORDS, _BATCH_BYTES = 2000, 256 << 20  # of one file of single records
_SAFE_PATH = re.compile(r"(?!.*\.\.)[\w][\w./=+-]*")


class Config(Table):
    """Table `common_crawl`: whole files by ``skip`` and ``count``, or records by ``hosts``, ``domains``, ``urls``."""

    version: ClassVar[int] = 1

    snapshot: str = Field(pattern=r"^CC-[\w-]+$", description="Name of the crawl, such as CC-MAIN-2024-10")
    base: str = Field(
        "https://data.commoncrawl.org",
        min_length=1,
        description="Where its files stand: an http(s) address, s3://commoncrawl, or a local copy's folder",
    )
    kind: Literal["warc", "wet"] = Field("warc", description="Whole files: captures, or text without markup")
    skip: int = Field(0, ge=0, description="Files of the snapshot's list that are passed over")
    count: int = Field(1, ge=1, description="Files that are taken after those")
    hosts: list[str] = Field([], description="Single records: host names")
    domains: list[str] = Field([], description="Single records: registered domains, such as example.org")
    urls: list[str] = Field([], description="Single records: address patterns, * for anything; narrow hosts, domains")
    languages: list[str] = Field([], description="Of those, pages in these languages (ISO 639-3, such as deu)")
    mime_types: list[str] = Field([], description="Of those, pages detected as these media types")
    statuses: list[int] = Field([200], description="Of those, answers with this HTTP status")
    records: int = Field(10_000, ge=1, description="Most single records that are taken")
    index: str | None = Field(
        None, description="Base address of the columnar index, or a folder or pattern of its Parquet files"
    )
    gap_bytes: int = runtime(64 << 10, ge=0, description="Records at most so far apart are fetched by one request")
    range_bytes: int = runtime(64 << 20, ge=1, description="Bytes of a file that one request asks for")
    file_bytes: int = runtime(16 << 30, ge=1, description="Longest file that is downloaded")
    parallel: int = runtime(4, ge=1, le=64, description="Requests under way at once")
    retries: int = runtime(8, ge=0, description="Further tries in a row after 403, 429, 5xx and broken connections")
    pause_seconds: float = runtime(1.0, gt=0, description="Pause before the first of them; doubles, with jitter")
    timeout_seconds: float = runtime(60.0, gt=0, description="Longest silence of a server")
    user_agent: str = runtime("millrace/0.1 (Common Crawl reader of the millrace project)", min_length=1)
    scratch: str | None = runtime(None, description="Local folder of unfinished downloads; by default below the stage")

    @field_validator("hosts", "domains")
    @classmethod
    def _names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):
                raise ValueError(f"{name}: is no host name; address patterns go into urls")
        return [name.lower() for name in names]

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            try:
                urlsplit(url)
            except ValueError as error:
                raise ValueError(f"{url}: is no address pattern: {error}") from None
        return urls

    @model_validator(mode="after")
    def _one_mode(self) -> Config:
        if not self.single and (self.languages or self.mime_types or self.index):
            raise ValueError("languages, mime_types and index choose single records: name hosts, domains or urls too")
        if self.single and self.kind != "warc":
            raise ValueError("kind = 'wet' is for whole files: the index knows WARC records only")
        return self

    @property
    def single(self) -> bool:
        """Whether single records are asked for."""
        return bool(self.hosts or self.domains or self.urls)

    @property
    def wanted(self) -> Wanted:
        """What is looked for in the index."""
        return Wanted(
            hosts=tuple(self.hosts),
            domains=tuple(self.domains),
            urls=tuple(self.urls),
            languages=tuple(self.languages),
            mime_types=tuple(self.mime_types),
            statuses=tuple(self.statuses),
        )


@dataclass
class Work:
    """One run of the step: its attempt, where files come from, and where unfinished ones stand."""

    attempt: Attempt
    config: Config
    folder: Path
    source: Source
    pauses: Pauses
    counts: Counter[str] = field(default_factory=Counter)

    def slice(self, key: str, name: str, make: Callable[[Path], dict[str, int]]) -> Manifest:
        """The published file ``name`` that ``key`` stands for; ``make`` writes it where that has not been done."""
        path = storage.join("slices", f"{key[:16]}.json")
        found = storage.read_tagged(storage.join(self.attempt.folder, path))
        if found:
            done = stage.parse_manifest(storage.join(self.attempt.folder, path), found[0])
            if done.fingerprint == key and stage.is_whole(self.attempt.folder, done):
                self.counts["found done"] += 1
                return done
        part = Attempt(self.attempt.stage, self.attempt.folder, self.config, key, [], found[1] if found else None)
        part.manifest_path, part.slice = path, key[:16]
        local = self.folder / key[:16]
        counts = make(local)
        target = storage.join(part.data_folder, name)
        place(local, target)
        table = stage.file_table(part.folder, [target])
        published = part.publish(part.manifest(tables={"captures": table}, counts=counts))
        for left in (local, local.with_name(local.name + ".json")):
            left.unlink(missing_ok=True)
        return published


def _listing(work: Work, path: str) -> bytes:
    """A snapshot's packed list of paths, unpacked; raises UserError where it is none."""
    packed = read_whole(work.source, path, _LISTING_BYTES, work.pauses)
    inflater = zlib.decompressobj(31)
    try:
        data = inflater.decompress(packed, _LISTING_BYTES)
    except zlib.error:
        data = b""
    if not data or not inflater.eof:
        raise UserError(f"{work.config.base}/{path}: is no packed list of paths")
    return data


def _paths(work: Work) -> list[str]:
    """The whole files that the recipe asks for."""
    config = work.config
    path = f"crawl-data/{config.snapshot}/{config.kind}.paths.gz"
    listed = _listing(work, path).decode("utf-8", "replace").split()
    chosen = listed[config.skip : config.skip + config.count]
    if len(chosen) < config.count:
        have = f"{config.base}/{path} lists {len(listed):,} files"
        raise UserError(f"common_crawl.skip = {config.skip}, count = {config.count}: {have}")
    if unsafe := [name for name in chosen if not _SAFE_PATH.fullmatch(name)]:
        raise UserError(f"{config.base}/{path}: names {unsafe[0]!r}: is no path of a capture file")
    return chosen


def _whole_file(work: Work, path: str) -> Manifest:
    config = work.config

    def make(local: Path) -> dict[str, int]:
        download(work.source, path, local, work.pauses, Bounds(config.range_bytes, config.file_bytes))
        return {"files": 1, "bytes": local.stat().st_size}

    return work.slice(digest(f"file {config.version}", config.base, path), path.rpartition("/")[2], make)


def _whole_files(work: Work) -> list[Manifest]:
    paths = _paths(work)
    with ThreadPoolExecutor(work.config.parallel) as pool:
        waiting = [pool.submit(_whole_file, work, path) for path in paths]
        try:
            for number, future in enumerate(as_completed(waiting), 1):
                log.info(
                    "%s: %d of %d files, %d bytes", work.attempt.stage, number, len(paths), _bytes(future.result())
                )
        except BaseException:
            work.pauses.stop.set()  # those under way end with their range; what they have stays on disk
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in waiting]


def _bytes(manifest: Manifest) -> int:
    return sum(entry.bytes for table in manifest.tables.values() for entry in table.files)


def _index_files(work: Work) -> tuple[list[str], Callable[[str], Any]]:
    """The index's files and how one is opened."""
    config = work.config
    index = config.index or config.base
    source = source_of(index, work.pauses.manners)
    if cc_index.is_web(source):
        listing = Work(work.attempt, config, work.folder, source, work.pauses)
        names = cc_index.listed_files(_listing(listing, f"crawl-data/{config.snapshot}/cc-index-table.paths.gz"))
        return names, lambda name: cc_index.remote_file(source, name, work.pauses)
    if config.index is None:
        index = storage.join(index, f"cc-index/table/cc-main/warc/crawl={config.snapshot}/subset=warc")
    return cc_index.stored_files(index), _open_stored


def _open_stored(path: str) -> Any:
    system, inner = storage.parquet_filesystem(path)
    return system.open_input_file(inner)


def _places(work: Work) -> list[Place]:
    """The records that the recipe asks for; what an earlier, killed run found is taken from its notes."""
    notes = work.folder / f"places-{work.attempt.fingerprint}.json"
    if notes.exists():
        return [Place(*item) for item in json.loads(notes.read_text())]
    names, opened = _index_files(work)
    log.info("%s: looking through %d index files", work.attempt.stage, len(names))
    config = work.config
    places = cc_index.search(names, opened, config.wanted, config.records, config.parallel)
    storage.write_bytes(str(notes), json.dumps(places).encode())
    return places


def is_record(member: bytes) -> bool:
    """Whether bytes are one whole gzip member that holds a WARC record."""
    inflater = zlib.decompressobj(31)
    try:
        head, data = inflater.decompress(member, 64), inflater.unconsumed_tail
        while data and not inflater.eof:
            inflater.decompress(data, 1 << 20)
            data = inflater.unconsumed_tail
    except zlib.error:
        return False
    return head.startswith(b"WARC/") and inflater.eof and not inflater.unused_data


def _records(work: Work, batch: list[Place]) -> Iterator[bytes]:
    """The records' bytes as they stand in their files; neighbours fetched by one request."""
    groups = cc_index.joined(batch, work.config.gap_bytes, 8 << 20)

    def fetch(group: list[Place]) -> list[bytes]:
        first, last = group[0], group[-1]
        length = last.offset + last.length - first.offset
        data = read(work.source, first.path, first.offset, length, work.pauses)
        return [data[at.offset - first.offset :][: at.length] for at in group]

    with ThreadPoolExecutor(work.config.parallel) as pool:
        try:
            for records in pool.map(fetch, groups):
                yield from records
        except BaseException:
            work.pauses.stop.set()
            raise


def _batch(work: Work, number: int, batch: list[Place]) -> Manifest:
    """One file of single records, in the order of their places."""

    def make(local: Path) -> dict[str, int]:
        counts: Counter[str] = Counter()
        with local.open("wb") as file:
            for record in _records(work, batch):
                file.write(record)
                counts["records"] += 1
                counts["damaged"] += not is_record(record)  # kept all the same: extraction counts it, with its place
        return {"files": 1, "bytes": local.stat().st_size, **counts}

    key = digest(f"records {work.config.version} {number}", work.config.base, json.dumps(batch))
    manifest = work.slice(key, f"records-{number:05}.warc.gz", make)
    log.info("%s: %s", work.attempt.stage, ", ".join(f"{key} {n:,}" for key, n in manifest.counts.items()))
    return manifest


def _single_records(work: Work) -> list[Manifest]:
    places = _places(work)
    if unsafe := [item.path for item in places if not _SAFE_PATH.fullmatch(item.path) or item.offset < 0]:
        raise UserError(f"common_crawl.index: names {unsafe[0]!r}: is no path of a capture file")
    if len(places) == work.config.records:
        log.info("%s: the first %d records; there may be more (common_crawl.records)", work.attempt.stage, len(places))
    cut = cc_index.batches(places, _BATCH_RECORDS, _BATCH_BYTES)
    return [_batch(work, number, batch) for number, batch in enumerate(cut)]


def step(recipe: Recipe, name: str = "common_crawl") -> Manifest:
    """Publish the captures that a recipe's table asks for; what is published already is not fetched again."""
    config: Config = recipe.need(name)
    attempt = stage.begin(recipe, name, [])
    if isinstance(attempt, Manifest):
        return attempt
    manners = Manners(config.user_agent, config.timeout_seconds, config.retries, config.parallel, config.pause_seconds)
    with held(folder_for(attempt.folder, "downloads", config.scratch)) as folder:
        work = Work(attempt, config, folder, source_of(config.base, manners), Pauses(manners))
        parts = (_single_records if config.single else _whole_files)(work)
        merged = slices.merge(attempt, parts)
        merged.details |= {**work.pauses.counts, **work.counts}
        manifest = attempt.publish(merged)
        clear(folder)
    counts = ", ".join(f"{key} {value:,}" for key, value in manifest.counts.items())
    log.info("%s: %s in %.1f s", name, counts, manifest.seconds)
    return manifest


def _all(recipe: Recipe) -> None:
    for name in recipe.tables_of("common_crawl"):
        step(recipe, name)


def main() -> None:
    """Entry point of ``python -m dataeng.acquire.common_crawl``: every table of this step."""
    main_with_recipe(_all)


if __name__ == "__main__":
    from dataeng.acquire import common_crawl  # the module under its own name: classes must be the same objects

    common_crawl.main()
