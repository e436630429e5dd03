"""What extract and ingest share: raw files to rows, one file a task, equal ids marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.document import ROW, to_batch
from dataeng.sources import mark_duplicates
from spark_jobs.session import Engine
from spark_jobs.stages import map_rows

_BATCH = 64  # rows that are handed over at once while a file is read
_ORDER = ("id", "file", "offset", "row_hash")  # several records may begin in one gzip member, so at one offset


def rows_of(
    engine: Engine, step: str, read_file: Callable[[str, str], Iterator[dict[str, Any]]]
) -> Callable[[SparkSession, list[dict[str, Any]]], DataFrame]:
    """A ``make_rows`` for ``sliced``: each file through ``read_file(path, name)``, largest first, ids made unique."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for file in batch.to_pylist():
                rows = read_file(file["path"], file["file"])
                while some := list(islice(rows, _BATCH)):
                    yield to_batch(some)

    def mark(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return mark_duplicates(batches, step)

    def make_rows(session: SparkSession, part: list[dict[str, Any]]) -> DataFrame:
        largest_first = sorted(part, key=lambda file: (-file["size"], file["file"]))
        names = [(file["path"], file["file"]) for file in largest_first]
        paths = session.createDataFrame(session.sparkContext.parallelize(names, len(names)), "path string, file string")
        rows = paths.mapInArrow(read, from_arrow_schema(ROW))
        partitions = engine.partitions(sum(file["size"] for file in part))
        # The shuffle computes each row once; all rows of an id stand in one partition, in one order.
        return map_rows(rows.repartition(partitions, "id").sortWithinPartitions(*_ORDER), mark)

    return make_rows
