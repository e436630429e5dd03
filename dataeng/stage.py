"""The stage contract: fingerprint, attempt, order-independent hashes, counts, one atomic publish.

``python -m dataeng.stage verify ROOT STAGE`` recomputes every hash from the published files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from dataeng import storage
from dataeng.cli import Conflict, UserError, one_line, run
from dataeng.document import row_hash
from dataeng.manifest import FORMAT, FileEntry, Manifest, TableEntry
from dataeng.recipe import Recipe, Table, hash_files

log = logging.getLogger("millrace")
NONDETERMINISTIC = ("timeout", "memory", "crash")
_MODULUS = 1 << 128
_WRITER = ".writer"  # the attempt that last began to write over files in place


class Broken(Exception):
    """A stage's rows do not add up: nothing was published."""


def folder_of(root: str, name: str) -> str:
    """The folder of a stage: below the root, or a path of its own (another run's stage)."""
    return name.rstrip("/") if "/" in name else storage.join(root, name)


def read_manifest(folder: str) -> tuple[Manifest, str] | None:
    """The published manifest with its tag, or None; raises UserError where it is damaged."""
    path = storage.join(folder, "manifest.json")
    found = storage.read_tagged(path)
    if found is None:
        return None
    return parse_manifest(path, found[0]), found[1]


def parse_manifest(path: str, data: bytes) -> Manifest:
    """The manifest in ``data``, read from ``path``; raises UserError where it is damaged or of another format."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise UserError(f"{path}: is damaged ({problem}): delete it and run the step again") from None
    if manifest.format != FORMAT:
        raise UserError(f"{path}: has format {manifest.format}, this version reads {FORMAT}: use another root")
    return manifest


def need_manifest(root: str, name: str, wanted_by: str) -> Manifest:
    """The manifest of an input stage; raises UserError where it has not been published."""
    folder = folder_of(root, name)
    found = read_manifest(folder)
    if found is None:
        raise UserError(f"{wanted_by}: its input {folder} has not been published: run `{name}` first")
    return found[0]


def table_paths(folder: str, manifest: Manifest, table: str = "kept") -> list[str]:
    """The full paths of a published table's files."""
    entry = manifest.tables.get(table, TableEntry())
    return [storage.join(folder, file.path) for file in entry.files]


def add_hashes(hashes: Iterable[str]) -> str:
    """The sum modulo 2^128 of hashes in hexadecimal: the same for any order and partitioning."""
    return f"{sum(int(value, 16) for value in hashes) % _MODULUS:032x}"


def id_hash(identifier: str) -> str:
    """The hash of one id, for comparing multisets of ids by ``add_hashes``."""
    return hashlib.blake2b(identifier.encode(), digest_size=16).hexdigest()


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of the named distributions."""
    return {name: metadata.version(name) for name in sorted(set(names))}


def all_libraries(config: Table) -> set[str]:
    """The distributions that a config and the tables in it declare to change results."""
    return set(config.libraries).union(*(all_libraries(part) for _, part in config.parts()))


def fingerprint(config: Table, seed: int, inputs: Sequence[object], with_libraries: bool = True) -> str:
    """What a stage's results follow from, in 32 hex digits; equal fingerprints mean equal results.

    ``inputs`` are JSON values: table hashes of stages, or (relative path, size, tag) of raw files. Without
    ``with_libraries`` results may differ by what other versions of libraries do.
    """
    libraries = library_versions(all_libraries(config)) if with_libraries else {}
    parts = [FORMAT, config.results(), seed, hash_files(config.files()), libraries, list(inputs)]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class Attempt:
    """One try at a stage. Its files stand in ``data_folder``; nobody reads them before ``publish``."""

    stage: str
    folder: str
    config: Table
    fingerprint: str
    inputs: list[dict[str, Any]]
    tag: str | None  # of the manifest that this attempt replaces
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)
    manifest_path: str = "manifest.json"  # slices: slices/SLICE.json
    slice: str = ""
    also: list[str] = field(default_factory=list)  # committed files of further tables, written before the rows
    in_place: bool = False  # files that an earlier manifest may have named were written over

    @property
    def data_folder(self) -> str:
        """Where this attempt writes."""
        return storage.join(self.folder, "data", *([self.slice] if self.slice else []), self.attempt)

    def relative(self, path: str) -> str:
        """A path of this stage as its manifest names it."""
        path = re.sub(r"^s3a://", "s3://", path)
        return path.removeprefix(self.folder.rstrip("/") + "/")

    def manifest(self, **values: Any) -> Manifest:
        """A manifest of this attempt; ``values`` are counts, tables, details and so on."""
        libraries = library_versions(all_libraries(self.config))
        return Manifest(
            stage=self.stage,
            version=type(self.config).version,
            attempt=self.attempt,
            fingerprint=self.fingerprint,
            config=self.config.model_dump(mode="json"),
            inputs=self.inputs,
            started=self.started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self.clock, 3),
            versions={"python": platform.python_version(), **libraries, **values.pop("versions", {})},
            **values,
        )

    def unpublish(self) -> bool:
        """Take the standing manifest away, before files that it may name are written over; False: write nothing.

        That is where another run published the same result since this attempt began. Raises Conflict where it was
        another result; ``publish`` does where another attempt has begun to write over the files since.
        """
        path = storage.join(self.folder, self.manifest_path)
        found = storage.read_tagged(path)
        if found and found[1] != self.tag:
            self._same_result(path, found)
            return False
        if found:
            storage.delete([path])
        self.tag, self.in_place = None, True
        storage.write_bytes(storage.join(self.folder, _WRITER), self.attempt.encode())
        return True

    def publish(self, manifest: Manifest) -> Manifest:
        """Make the attempt visible in one conditional write, and return what stands published.

        Another run's manifest of the same fingerprint is as good; another fingerprint raises Conflict.
        """
        path = storage.join(self.folder, self.manifest_path)
        if self.in_place and storage.read_bytes(storage.join(self.folder, _WRITER)) != self.attempt.encode():
            raise Conflict(f"{self.folder}: another run writes over the same files")
        storage.make_durable([storage.join(self.folder, f.path) for t in manifest.tables.values() for f in t.files])
        if storage.write_if(path, manifest.encoded(), self.tag):
            return manifest
        return self._same_result(path, storage.read_tagged(path))

    def _same_result(self, path: str, found: tuple[bytes, str] | None) -> Manifest:
        """What another run published first; raises Conflict where that is not what this attempt makes."""
        other = parse_manifest(path, found[0]) if found else None
        if other and other.fingerprint == self.fingerprint:
            log.info("%s: another run published the same result first; using it", self.stage)
            return other
        raise Conflict(f"{path}: another run with other settings or inputs published meanwhile")


def lacking(folder: str, manifest: Manifest) -> str | None:
    """The first file that a manifest names and that is not there, or not with its size, and how; None where all are.

    Lists no more than the files' common folder.
    """
    named = {f.path: f.bytes for t in manifest.tables.values() for f in t.files}
    if not named:
        return None
    common = storage.join(folder, os.path.commonpath([os.path.dirname(path) for path in named]))
    listed = {entry.path: entry.size for entry in storage.list_files(common)}
    for path, size in named.items():
        if (found := listed.get(whole := storage.join(folder, path))) != size:
            return f"{whole}: is missing" if found is None else f"{whole}: has {found:,} bytes, not {size:,}"
    return None


def is_whole(folder: str, manifest: Manifest) -> bool:
    """Whether every file that a manifest names is there with its size."""
    return lacking(folder, manifest) is None


def begin(recipe: Recipe, name: str, inputs: Sequence[dict[str, Any]]) -> Attempt | Manifest:
    """An attempt at a step, or the manifest that stands published where the work is done.

    ``inputs`` are ``{"stage": …, "hash": …}`` or ``{"path": …, "size": …, "tag": …}`` and enter the fingerprint.
    """
    config, folder = recipe.step(name), folder_of(recipe.root, name)
    print_of = fingerprint(config, recipe.seed, list(inputs))
    found = read_manifest(folder)
    if found and found[0].fingerprint == print_of:
        if is_whole(folder, found[0]):
            counts = ", ".join(f"{key} {value:,}" for key, value in found[0].counts.items())
            log.info("%s: done already (%s)", name, counts)
            return found[0]
        log.info("%s: files that its manifest names are missing; running again", name)
    return Attempt(name, folder, config, print_of, list(inputs), found[1] if found else None)


def stage_inputs(root: str, names: str | Sequence[str], wanted_by: str, table: str = "kept") -> list[dict[str, Any]]:
    """The ``inputs`` entries of stages that a step reads, each with its table's hash."""
    names = [names] if isinstance(names, str) else names
    manifests = [(name, need_manifest(root, name, wanted_by)) for name in names]
    return [{"stage": name, "hash": m.tables.get(table, TableEntry()).hash} for name, m in manifests]


def check_inputs(root: str, attempt: Attempt) -> None:
    """Raise Conflict where an input stage was published anew while the attempt read it: rows may be of either."""
    for entry in attempt.inputs:
        if "stage" in entry:
            tables = need_manifest(root, entry["stage"], attempt.stage).tables.values()
            if entry["hash"] not in {TableEntry().hash, *(table.hash for table in tables)}:
                problem = f"its input {entry['stage']} was published anew meanwhile"
                raise Conflict(f"{attempt.stage}: {problem}: run it again")


@dataclass(frozen=True)
class FileFacts:
    """What was read from one committed Parquet file."""

    path: str
    table: str
    rows: int
    bytes: int
    hash: str
    ids: str
    rules: dict[str, int]


def measure(path: str) -> FileFacts:
    """Read a committed file's rows, the sums of its row hashes and id hashes, and its drop rules."""
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source:
        size = source.size()
        parquet = pq.ParquetFile(source)
        names = [n for n in ("row_hash", "id", "rule") if n in parquet.schema_arrow.names]
        rows, hash_sum, id_sum, rules = 0, 0, 0, Counter[str]()
        for batch in parquet.iter_batches(65_536, columns=names):
            rows += batch.num_rows
            hash_sum += sum(int(value, 16) for value in batch.column("row_hash").to_pylist())
            if "id" in names:
                id_sum += sum(int(id_hash(value), 16) for value in batch.column("id").to_pylist())
            if "rule" in names:
                rules.update(value for value in batch.column("rule").to_pylist() if value is not None)
    found = re.search(r"/table=([^/]+)/", path)
    table = found[1] if found else "kept"
    return FileFacts(path, table, rows, size, f"{hash_sum % _MODULUS:032x}", f"{id_sum % _MODULUS:032x}", dict(rules))


def tables_of(facts: Sequence[FileFacts], attempt: Attempt) -> dict[str, TableEntry]:
    """The manifest's tables from facts of all committed files."""
    kept = type(attempt.config).kept_tables
    tables: dict[str, TableEntry] = {name: TableEntry() for name in (*kept, "dropped")}
    for fact in sorted(facts, key=lambda f: f.path):
        entry = tables.setdefault(fact.table, TableEntry())
        file = FileEntry(path=attempt.relative(fact.path), rows=fact.rows, bytes=fact.bytes)
        tables[fact.table] = TableEntry(
            rows=entry.rows + fact.rows, hash=add_hashes([entry.hash, fact.hash]), files=[*entry.files, file]
        )
    return tables


def check_balance(attempt: Attempt, facts: Sequence[FileFacts], rows_in: int, ids_in: str | None) -> dict[str, int]:
    """The counts, after checking in = kept + dropped and equal ids; raises Broken otherwise."""
    kept = type(attempt.config).kept_tables
    split = [fact for fact in facts if fact.table in (*kept, "dropped")]
    dropped = sum(f.rows for f in split if f.table == "dropped")
    rows = {"kept": sum(f.rows for f in split) - dropped, "dropped": dropped}
    if rows_in != sum(rows.values()):
        raise Broken(f"{attempt.stage}: {rows_in} rows came in but {rows} were written")
    if ids_in is not None and add_hashes(f.ids for f in split) != ids_in:
        raise Broken(f"{attempt.stage}: the ids written are not those that came in")
    return {"in": rows_in, **rows}


def dropped_by(facts: Sequence[FileFacts]) -> dict[str, int]:
    """Dropped rows by rule, most frequent first."""
    total = Counter[str]()
    for fact in facts:
        if fact.table == "dropped":
            total.update(fact.rules)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def file_table(folder: str, paths: Sequence[str]) -> TableEntry:
    """A table of plain files (shards, exports): its hash is a sum over names below the stage and contents."""
    files, hashes = [], []
    for path in sorted(paths):
        state, size = hashlib.blake2b(digest_size=16), 0
        name = path.removeprefix(folder.rstrip("/") + "/")
        state.update(name.rpartition("/")[2].encode() + b"\0")
        with storage.open_stream(path) as stream:
            while chunk := stream.read(8 << 20):
                state.update(chunk)
                size += len(chunk)
        files.append(FileEntry(path=name, rows=0, bytes=size))
        hashes.append(state.hexdigest())
    return TableEntry(rows=0, hash=add_hashes(hashes), files=files)


def verify(root: str, name: str) -> list[str]:
    """Recompute every table's rows and hash from the published files; what differs, a line each."""
    folder = folder_of(root, name)
    manifest = need_manifest(root, name, "verify")
    problems = []
    for table, entry in manifest.tables.items():
        paths = [storage.join(folder, file.path) for file in entry.files]
        missing = [path for path in paths if storage.stat(path) is None]
        if missing:
            problems.append(f"{table}: {missing[0]} is missing")
            continue
        if all(path.endswith(".parquet") for path in paths):
            try:
                sums = [_recompute(path) for path in paths]
            except (OSError, pa.ArrowException) as error:
                problems.append(f"{table}: cannot be read: {one_line(error)}")
                continue
            found = (sum(rows for rows, _ in sums), add_hashes(value for _, value in sums))
        else:
            found = (entry.rows, file_table(folder, paths).hash)
        if found != (entry.rows, entry.hash):
            problems.append(
                f"{table}: {found[0]} rows, hash {found[1]}; manifest: {entry.rows} rows, hash {entry.hash}"
            )
    return problems


def _recompute(path: str) -> tuple[int, str]:
    system, inner = storage.parquet_filesystem(path)
    rows, hashes = 0, []
    with system.open_input_file(inner) as source:
        parquet = pq.ParquetFile(source)
        maps = [f.name for f in parquet.schema_arrow if str(f.type).startswith("map")]
        for batch in parquet.iter_batches(1024):
            for row in batch.to_pylist():
                row |= {name: dict(row[name] or ()) for name in maps}
                rows += 1
                hashes.append(row_hash(row))
    return rows, add_hashes(hashes)


def _main(arguments: Sequence[str]) -> None:
    if len(arguments) != 3 or arguments[0] != "verify":
        raise UserError("usage: python -m dataeng.stage verify ROOT STAGE")
    problems = verify(arguments[1], arguments[2])
    if problems:
        raise Broken(f"{arguments[2]}: " + "; ".join(problems))
    print(f"{arguments[2]}: every row and file is as the manifest says")


if __name__ == "__main__":
    run(_main)
