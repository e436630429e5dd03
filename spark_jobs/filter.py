"""Filter documents: language, quality, toxicity, personal data. ``spark_jobs/filter.py RECIPE``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from dataeng import stage
from dataeng.document import from_row, to_batch
from dataeng.filter import Config, apply
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs.session import Engine, job
from spark_jobs.stages import map_rows, read_files, sliced, stage_files

NAME = "filter"


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Filter the kept documents of the input stages, slice by slice."""
    config: Config = recipe.need(NAME)
    inputs = stage.stage_inputs(recipe.root, config.input, NAME)

    def filtered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield to_batch(apply(from_row(row), config) for row in batch.to_pylist())

    def make_rows(session: SparkSession, files: list[dict[str, Any]]) -> DataFrame:
        frame = read_files(session, [str(file["path"]) for file in files])
        partitions = engine.partitions(sum(int(file["size"]) for file in files))
        return map_rows(frame.repartition(partitions, "id"), filtered)

    return sliced(engine, recipe, NAME, inputs, stage_files(recipe, config.input), make_rows)


if __name__ == "__main__":
    job(step)
