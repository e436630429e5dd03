"""What every Spark stage shares: rows are computed once, written, measured, checked and published."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng import slices, stage, storage
from dataeng.document import ROW
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, FileFacts, Manifest
from spark_jobs.session import Engine

log = logging.getLogger("millrace")

Details = dict[str, Any] | Callable[[Sequence[FileFacts]], dict[str, Any]]
Made = DataFrame | tuple[DataFrame, dict[str, Any]]  # a slice's rows, and what its manifest has as ``details``
Rows = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]
_MEASURED_IN_DRIVER = 32  # files; more of them are measured by a Spark job


def map_rows(frame: DataFrame, function: Rows, schema: pa.Schema = ROW) -> DataFrame:
    """``function`` over the frame's Arrow batches (at most 256 rows or 32 MB each)."""
    return frame.mapInArrow(function, from_arrow_schema(schema))


def read_tables(
    session: SparkSession,
    recipe: Recipe,
    names: str | Sequence[str],
    table: str = "kept",
    columns: Sequence[str] | None = None,
) -> DataFrame:
    """A published table of one or several stages as one DataFrame; only files that manifests name."""
    names = [names] if isinstance(names, str) else names
    paths = []
    for name in names:
        folder = stage.folder_of(recipe.root, name)
        paths += stage.table_paths(folder, stage.need_manifest(recipe.root, name, "this step"), table)
    return read_files(session, paths, columns)


def read_files(session: SparkSession, paths: Sequence[str], columns: Sequence[str] | None = None) -> DataFrame:
    """Parquet files with the columns of a document row (or those asked for); none at all is an empty frame."""
    schema = from_arrow_schema(ROW.remove(ROW.get_field_index("table")))
    if columns is not None and all(name in ROW.names for name in columns):
        schema = from_arrow_schema(pa.schema([ROW.field(name) for name in columns]))
    if not paths:
        return session.createDataFrame([], schema)
    return session.read.schema(schema).parquet(*paths)


def stage_files(recipe: Recipe, names: str | Sequence[str], table: str = "kept") -> list[dict[str, Any]]:
    """The files of published tables as entries that ``sliced`` cuts: path, size and tag."""
    files = []
    for name in [names] if isinstance(names, str) else names:
        folder = stage.folder_of(recipe.root, name)
        manifest = stage.need_manifest(recipe.root, name, "this step")
        entry = manifest.tables.get(table, stage.TableEntry())
        files += [{"path": storage.join(folder, f.path), "size": f.bytes, "rows": f.rows} for f in entry.files]
    return files


def write(frame: DataFrame, folder: str) -> list[str]:
    """Write rows below ``folder`` in one query, a folder a table, and list the committed files."""
    frame.write.partitionBy("table").mode("errorifexists").parquet(folder)
    if storage.is_s3(folder):
        success = json.loads(storage.read_bytes(storage.join(folder, "_SUCCESS")) or b"{}")
        if success.get("committer") != "magic":
            raise stage.Broken(f"{folder}: was not written through the magic committer")
    # A task that outlived its job may still write below a folder whose name begins so: that was never committed.
    parts = ((entry.path, entry.path.removeprefix(folder)) for entry in storage.list_files(folder))
    return [path for path, inner in parts if inner.endswith(".parquet") and not inner.startswith(("/_", "/."))]


def measure(session: SparkSession, paths: Sequence[str]) -> list[FileFacts]:
    """Rows, hashes, ids and rules of committed files; many files are read by the executors."""
    if len(paths) <= _MEASURED_IN_DRIVER:
        return [stage.measure(path) for path in paths]
    return session.sparkContext.parallelize(paths, min(len(paths), 256)).map(stage.measure).collect()


def _captures(paths: Sequence[str]) -> tuple[int, int, dict[str, float]]:
    """What the rows of table ``captures`` counted while reading: records and damage in, skipped, and what else."""
    import pyarrow.parquet as pq

    came, skipped, more = 0, 0, Counter[str]()
    for path in paths:
        system, inner = storage.parquet_filesystem(path)
        for pairs in pq.read_table(inner, filesystem=system, columns=["metadata"])["metadata"].to_pylist():
            counts = dict(pairs)
            came += int(counts.pop("captures")) + int(counts.pop("damaged"))
            skipped += int(counts.pop("skipped"))
            more.update({key: json.loads(value) for key, value in counts.items()})
    return came, skipped, {key: round(value, 4) for key, value in sorted(more.items())}


def commit(
    session: SparkSession, attempt: Attempt, frame: DataFrame, came: tuple[int, str] | None, **more: Any
) -> Manifest:
    """Write an attempt's rows, check them against what came in (rows, sum of id hashes), publish.

    ``came`` None takes the number of rows in from the table ``captures``. ``more`` are further values of the manifest;
    ``details`` may be a function of the facts of the written files.
    """
    facts = measure(session, [*write(frame, attempt.data_folder), *attempt.also])
    captured = [fact.path for fact in facts if fact.table == "captures"]
    rows_in, skipped, details = (came[0], 0, {}) if came else _captures(captured)
    if details:
        more["details"] = details | more.get("details", {})
    if callable(more.get("details")):
        more["details"] = more["details"](facts)
    counts = stage.check_balance(attempt, facts, rows_in, came[1] if came else None)
    rules = stage.dropped_by(facts)
    manifest = attempt.manifest(
        tables=stage.tables_of(facts, attempt),
        counts=counts | ({"skipped": skipped} if captured else {}),
        dropped_by=rules,
        nondeterministic=sum(rules.get(rule, 0) for rule in stage.NONDETERMINISTIC),
        versions={"pyspark": session.version},
        **more,
    )
    return attempt.publish(manifest)


def ids_in(session: SparkSession, paths: Sequence[str]) -> tuple[int, str]:
    """Rows and the sum of id hashes of input files."""
    facts = measure(session, paths)
    return sum(fact.rows for fact in facts), stage.add_hashes(fact.ids for fact in facts)


def _say(manifest: Manifest) -> Manifest:
    counts = ", ".join(f"{key} {value:,}" for key, value in manifest.counts.items())
    reasons = ", ".join(f"{rule} {n:,}" for rule, n in list(manifest.dropped_by.items())[:6])
    log.info("%s: %s%s in %.1f s", manifest.stage, counts, f" ({reasons})" if reasons else "", manifest.seconds)
    return manifest


def sliced(
    engine: Engine,
    recipe: Recipe,
    name: str,
    inputs: Sequence[dict[str, Any]],
    files: Sequence[dict[str, Any]],
    make_rows: Callable[[SparkSession, list[dict[str, Any]]], Made],
    from_captures: bool = False,
) -> Manifest:
    """A per-document stage: files cut into slices, each published by itself; a rerun repeats none that is done.

    ``inputs`` enter the stage's fingerprint; ``files`` (path, size, and what else tells one from another) each slice's.
    """
    attempt = stage.begin(recipe, name, inputs)
    if isinstance(attempt, Manifest):
        return attempt
    parts = []
    cut = slices.cut_slices(files, getattr(attempt.config, "slice_bytes", 1 << 62))
    for number, slice_files in enumerate(cut, 1):
        part = _slice(engine, recipe, attempt, slice_files, make_rows, from_captures)
        parts.append(part)
        if len(cut) > 1:
            log.info("%s: slice %d of %d", name, number, len(cut))
    stage.check_inputs(recipe.root, attempt)
    return _say(attempt.publish(slices.merge(attempt, parts)))


def _slice(
    engine: Engine,
    recipe: Recipe,
    attempt: Attempt,
    files: list[dict[str, Any]],
    make_rows: Callable[[SparkSession, list[dict[str, Any]]], Made],
    from_captures: bool,
) -> Manifest:
    print_of = stage.fingerprint(attempt.config, recipe.seed, files)
    path = storage.join("slices", f"{print_of[:16]}.json")
    found = storage.read_tagged(storage.join(attempt.folder, path))
    if found:
        done = stage.parse_manifest(storage.join(attempt.folder, path), found[0])
        if stage.is_whole(attempt.folder, done):
            log.info("%s: a slice of %d files is done already", attempt.stage, len(files))
            return done
    part = Attempt(attempt.stage, attempt.folder, attempt.config, print_of, files, found[1] if found else None)
    part.manifest_path, part.slice = path, print_of[:16]
    session = engine.session()
    session.conf.set("spark.sql.shuffle.partitions", engine.partitions(sum(int(f["size"]) for f in files)))
    came = None if from_captures else ids_in(session, [str(file["path"]) for file in files])
    made = make_rows(session, files)
    frame, details = made if isinstance(made, tuple) else (made, {})
    return commit(session, part, frame, came, details=details)


def joined(
    engine: Engine,
    recipe: Recipe,
    name: str,
    inputs: Sequence[dict[str, Any]],
    paths: Callable[[], Iterable[str]],
    make_rows: Callable[[SparkSession, Attempt, list[str]], tuple[DataFrame, Details]],
) -> Manifest:
    """A stage that joins: all input files at once. ``make_rows`` also gives the manifest's ``details``."""
    attempt = stage.begin(recipe, name, inputs)
    if isinstance(attempt, Manifest):
        return attempt
    files = list(paths())
    session = engine.session()
    size = sum(entry.size for path in files if (entry := storage.stat(path)))
    session.conf.set("spark.sql.shuffle.partitions", engine.partitions(size))
    came = ids_in(session, files)
    frame, details = make_rows(session, attempt, files)
    stage.check_inputs(recipe.root, attempt)
    return _say(commit(session, attempt, frame, came, details=details))
