"""Drop documents that contain evaluation items: spark-submit spark_jobs/decontaminate.py RECIPE [KEY=VALUE …].

The index of the items is small and broadcast. A first pass counts in how many documents each n-gram
that was found stands (a table no larger than the index), the second decides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dataeng import stage
from dataeng.decontaminate import Config, index, items
from dataeng.document import Document, from_row, to_batch, to_dropped, to_row
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs.session import Engine, job
from spark_jobs.stages import joined, map_rows, read_files, stage_files

log = logging.getLogger("millrace")
NAME = "decontaminate"
_ENTRIES = pa.schema([("entry", pa.int64())])


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the input stages' documents without those that contain evaluation items."""
    config: Config = recipe.need(NAME)
    inputs = stage.stage_inputs(recipe.root, config.input, NAME)
    if "tasks" in recipe:
        inputs += stage.stage_inputs(recipe.root, "tasks", NAME, table="test")

    wanted = _items(recipe, config)  # read before an engine starts: a wrong field is found at once

    def make_rows(session: SparkSession, _attempt: Attempt, paths: list[str]) -> tuple[DataFrame, dict[str, Any]]:
        found = index.build(wanted, config)
        frame = read_files(session, paths)
        held = session.sparkContext.broadcast(found)
        common = _common(frame, held, config)
        details = {
            "items": len(found.names), "too_short": found.too_short, "ngrams": len(found.hashes),
            "common_ngrams": len(common), "index_bytes": index.memory_bytes(found),
        }  # fmt: skip
        log.info("%s: %d items, %d n-grams; too short: %s", NAME, len(found.names), len(found.hashes), found.too_short)
        return map_rows(frame, lambda batches: _decided(batches, held, common, config)), details

    return joined(
        engine, recipe, NAME, inputs, lambda: [f["path"] for f in stage_files(recipe, config.input)], make_rows
    )


def _items(recipe: Recipe, config: Config) -> list[items.Item]:
    found = [item for entry in config.sets for item in items.read_set(entry)]
    if "tasks" in recipe:
        found += items.read_tasks([file["path"] for file in stage_files(recipe, "tasks", "test")])
    return found


def _common(frame: DataFrame, held: Any, config: Config) -> list[int]:
    """The entries that more than ``common_documents`` documents hold."""
    if not config.common_documents or not len(held.value.hashes):
        return []

    def entries(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [index.entries_in(text or "", held.value) for text in batch.column("text").to_pylist()]
            yield pa.record_batch([pa.array([e for one in found for e in one.tolist()], pa.int64())], schema=_ENTRIES)

    counts = map_rows(frame.select("text"), entries, _ENTRIES).groupBy("entry").count()
    return sorted(row["entry"] for row in counts.where(F.col("count") > config.common_documents).collect())


def _decided(
    batches: Iterable[pa.RecordBatch], held: Any, common: list[int], config: Config
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield to_batch(_row(from_row(row), held.value, common, config) for row in batch.to_pylist())


def _row(document: Document, found: index.Index, common: list[int], config: Config) -> dict[str, Any]:
    best = index.find(document, found, common)
    if best is None:
        return to_row(document)
    document = replace(document, scores=document.scores | {"contaminated": best.similarity})
    verdict = index.decide(best, config)
    if verdict.keep:
        return to_row(document)
    return to_dropped(document, NAME, verdict, matched=best.item, similarity=best.similarity)


if __name__ == "__main__":
    job(step)
