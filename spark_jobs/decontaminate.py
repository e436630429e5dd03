"""Drop documents that contain evaluation items, or cut these: spark-submit spark_jobs/decontaminate.py RECIPE [K=V …].

The index of the items is small and broadcast. A first pass counts in how many documents each n-gram
that was found stands (a table no larger than the index), the second decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dataeng import stage
from dataeng.decontaminate import Config, index, items
from dataeng.decontaminate.decide import ITEMS, KIND, counted, decided
from dataeng.decontaminate.search import Common, Judge, grams_in
from dataeng.document import from_row, to_batch
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, FileFacts, Manifest
from spark_jobs.session import Engine, job
from spark_jobs.stages import Details, joined, map_rows, read_files, stage_files

log = logging.getLogger("millrace")
NAME = "decontaminate"
_COUNTS = pa.schema([("gram", pa.int64()), ("documents", pa.int64())])


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the input stages' documents without those that contain evaluation items."""
    config: Config = recipe.need(NAME)
    inputs = stage.stage_inputs(recipe.root, config.input, NAME)
    if "tasks" in recipe:
        inputs += stage.stage_inputs(recipe.root, "tasks", NAME, table="test")

    wanted = _items(recipe, config)  # read before an engine starts: a wrong field is found at once

    def make_rows(session: SparkSession, _attempt: Attempt, paths: list[str]) -> tuple[DataFrame, Details]:
        found = index.build(wanted, config)
        frame = read_files(session, paths)
        held = session.sparkContext.broadcast(found)
        documents = sum(file["rows"] for file in stage_files(recipe, config.input))
        common = _common(frame, held, config, documents)
        details = {
            "items": len(found.names), "ngrams": found.grams, "index_bytes": index.memory_bytes(found),
            "common_ngrams": len(common.weak), "phrases": len(common.phrases),
        }  # fmt: skip
        log.info("%s: %d items, %d n-grams: %s", NAME, len(found.names), found.grams, found.sets)

        def with_counts(facts: Sequence[FileFacts]) -> dict[str, Any]:
            return details | {"sets": counted(found.sets, _found(session, facts, config))}

        def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            judge = Judge(held.value, config, common)
            for batch in batches:
                yield to_batch(decided(from_row(row), judge) for row in batch.to_pylist())

        return map_rows(frame, rows), with_counts

    return joined(
        engine, recipe, NAME, inputs, lambda: [file["path"] for file in stage_files(recipe, config.input)], make_rows
    )


def _items(recipe: Recipe, config: Config) -> list[items.Item]:
    found = [item for entry in config.sets for item in items.read_set(entry)]
    if "tasks" in recipe:
        found += items.read_tasks([file["path"] for file in stage_files(recipe, "tasks", "test")])
    return found


def _common(frame: DataFrame, held: Any, config: Config, documents: int) -> Common:
    """The n-grams that more than ``common_documents``, and more than ``phrase_documents``, hold."""
    limits = [limit for limit in (config.common_documents, config.phrase_documents) if limit]
    if not limits or documents <= min(limits) or not held.value.grams:
        return Common()

    def counts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = np.zeros(held.value.grams, np.int64)  # of this task: one row a gram leaves it
        for batch in batches:
            for text in batch.column("text").to_pylist():
                total[grams_in(text or "", held.value)] += 1
        grams = np.flatnonzero(total)
        yield pa.record_batch([pa.array(grams, pa.int64()), pa.array(total[grams], pa.int64())], schema=_COUNTS)

    sums = map_rows(frame.select("text"), counts, _COUNTS).groupBy("gram").agg(F.sum("documents").alias("n"))
    many = sorted((row["gram"], row["n"]) for row in sums.where(F.col("n") > min(limits)).collect())
    weak = [gram for gram, n in many if config.common_documents and n > config.common_documents]
    return Common(weak, [gram for gram, n in many if config.phrase_documents and n > config.phrase_documents])


def _found(session: SparkSession, facts: Sequence[FileFacts], config: Config) -> Iterator[tuple[str, str, str, int]]:
    """(table, kind, items as written, documents) of what was dropped and, where lines were cut, kept."""
    for table in ("dropped", "kept") if config.action == "cut" else ("dropped",):
        paths = [fact.path for fact in facts if fact.table == table and fact.rows]
        if paths:
            own = [F.col("metadata")[name].alias(name) for name in (KIND, ITEMS)]
            frame = read_files(session, paths, ["metadata"]).select(*own).where(F.col(KIND).isNotNull())
            for row in frame.groupBy(KIND, ITEMS).count().collect():
                yield table, row[KIND], row[ITEMS], row["count"]


if __name__ == "__main__":
    job(step)
