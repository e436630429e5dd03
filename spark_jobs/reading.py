"""What extract and ingest share: raw files to rows, one file a task, equal ids marked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.document import ROW, to_batch
from dataeng.sources import mark_duplicates
from spark_jobs.equal_captures import Look, parts_of, shared_rows
from spark_jobs.session import Engine
from spark_jobs.stages import Made, map_rows

log = logging.getLogger("millrace")
_BATCH = 64  # rows that are handed over at once while a file is read
_ORDER = ("id", "file", "offset", "row_hash")  # several records may begin in one gzip member, so at one offset
_FILES = "task int, path string, file string"


def rows_of(
    engine: Engine,
    step: str,
    read_file: Callable[..., Iterator[dict[str, Any]]],
    look: Look | None = None,
    look_from: int = 0,
) -> Callable[[SparkSession, list[dict[str, Any]]], Made]:
    """A ``make_rows`` for ``sliced``: each file through ``read_file(path, name)``, largest first, ids made unique.

    With ``look`` the captures that share their contents are found first in slices of at least ``look_from`` bytes, and
    ``read_file`` is told as ``shared``. The manifest's details say how many were not extracted again (``repeats``).
    """
    held: list[DataFrame] = []

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for file in batch.to_pylist():
                rows = read_file(file["path"], file["file"])
                while some := list(islice(rows, _BATCH)):
                    yield to_batch(some)

    def read_shared(path: str, file: str, shared: Any) -> Iterator[dict[str, Any]]:
        return read_file(path, file, shared=shared)

    def mark(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return mark_duplicates(batches, step)

    def parts(files: DataFrame, look: Look) -> tuple[DataFrame, int]:
        while held:
            held.pop().unpersist()
        held.append(parts_of(files, look).persist(StorageLevel.DISK_ONLY))
        return held[0], held[0].filter("not leads").count()

    def make_rows(session: SparkSession, part: list[dict[str, Any]]) -> Made:
        largest_first = sorted(part, key=lambda file: (-file["size"], file["file"]))
        names = [(task, file["path"], file["file"]) for task, file in enumerate(largest_first)]
        files = session.createDataFrame(session.sparkContext.parallelize(names, len(names)), _FILES)
        size = sum(file["size"] for file in part)
        partitions = engine.partitions(size)
        found, repeats = parts(files, look) if look and size >= look_from else (None, 0)
        if found is not None and repeats:
            log.info("%s: %d captures repeat others' contents: extracted once", step, repeats)
            rows = shared_rows(files, len(names), found, read_shared, partitions)
        else:
            # The shuffle computes each row once; all rows of an id stand in one partition, in one order.
            rows = files.mapInArrow(read, from_arrow_schema(ROW)).repartition(partitions, "id")
        return map_rows(rows.sortWithinPartitions(*_ORDER), mark), {} if found is None else {"repeats": repeats}

    return make_rows
