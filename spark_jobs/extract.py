"""Captures (WARC) become documents: one capture file a task, rows yielded while the file is read.

spark-submit spark_jobs/extract.py RECIPE [KEY=VALUE …]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.document import ROW, to_batch
from dataeng.extract import Config
from dataeng.extract.captures import as_duplicate, extract_file, input_entries, input_files
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs.session import Engine, job
from spark_jobs.stages import map_rows, sliced

_BATCH = 64


def _mark_duplicates(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows sorted by id, file and offset: of equal ids all but the first become dropped rows."""
    last = None
    for batch in batches:
        ids = batch.column("id").to_pylist()
        if len({last, *ids}) == len(ids) + 1:
            yield batch
        else:
            rows = []
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                rows.append(as_duplicate(row) if row["id"] == last else row)
                last = row["id"]
            yield to_batch(rows)
        last = ids[-1] if ids else last


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the documents of the captures that `extract.input` names."""
    config: Config = recipe.need("extract")
    files = input_files(recipe, config)

    def make_rows(session: SparkSession, part: list[dict[str, Any]]) -> DataFrame:
        named = [(file["path"], file["file"]) for file in sorted(part, key=lambda file: -file["size"])]
        frame = session.sparkContext.parallelize(named, len(named))
        paths = session.createDataFrame(frame, ["path", "file"])

        def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for file in batch.to_pylist():
                    rows = extract_file(file["path"], file["file"], config)
                    while some := list(islice(rows, _BATCH)):
                        yield to_batch(some)

        rows = paths.mapInArrow(read, from_arrow_schema(ROW))
        partitions = engine.partitions(sum(file["size"] for file in part))
        ordered = rows.repartition(partitions, "id").sortWithinPartitions("id", "file", "offset")
        return map_rows(ordered, _mark_duplicates)

    return sliced(engine, recipe, "extract", input_entries(recipe, config, files), files, make_rows, from_captures=True)


if __name__ == "__main__":
    job(step)
