"""Publish the corpus: sources mixed to their budgets, documents split into train, validation and test.

Two passes over the text, nothing of it shuffled: sums by source, bucket, split and language first (at most
65,536 rows a source, split and language), then every document placed by itself. A few numbers a source and
language reach the driver.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from dataeng.cli import Failure
from dataeng.document import DOCUMENT
from dataeng.publish import Config, card, mixture
from dataeng.publish.mixture import Quota
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.scratch import Scratch, joined
from spark_jobs.session import Engine, job

log = logging.getLogger("millrace")


def _quotas(sums: DataFrame, wanted: dict[str, float], available: dict[str, int]) -> dict[str, Quota]:
    """Each source's quota: its cut is the bucket after the last whose running sum fits the rest."""
    parts = {name: mixture.copies_and_rest(units, available[name]) for name, units in wanted.items()}
    rest = F.create_map(*(F.lit(value) for name, (_, rest) in parts.items() for value in (name, float(rest))))
    buckets = sums.groupBy("source", "bucket").agg(F.sum("units").alias("units"))
    running = F.sum("units").over(Window.partitionBy("source").orderBy("bucket"))
    fitting = (
        buckets.filter("units > 0").withColumn("running", running).filter(F.col("running") <= rest[F.col("source")])
    )
    cuts: dict[str, int] = dict(fitting.groupBy("source").agg(F.max("bucket") + 1).collect())
    return {name: Quota(copies, cuts.get(name, 0)) for name, (copies, _) in parts.items()}


def _totals(sums: DataFrame, quotas: dict[str, Quota]) -> list[dict[str, Any]]:
    """By source, split and language: documents used, their units (copies counted) and their bytes."""
    copies = F.create_map(*(F.lit(value) for name, quota in quotas.items() for value in (name, quota.copies)))
    cut = F.create_map(*(F.lit(value) for name, quota in quotas.items() for value in (name, quota.cut)))
    uses = copies[F.col("source")] + (F.col("bucket") < cut[F.col("source")]).cast("long")
    used = sums.withColumn("uses", uses).filter("uses > 0").withColumn("units", F.col("units") * F.col("uses"))
    columns = [F.sum(name).alias(name) for name in ("documents", "units", "bytes")]
    return [row.asDict() for row in used.groupBy("source", "split", "language").agg(*columns).collect()]


def _rows(
    session: SparkSession, config: Config, seed: int, files: list[str], scratch: Scratch
) -> tuple[DataFrame, dict[str, Any]]:
    documents = stages.read_files(session, files, DOCUMENT.names)
    measured = stages.map_rows(
        documents.select("id", "text", "source", "language", "metadata"),
        partial(mixture.measure, config=config, seed=seed),
        mixture.MEASURED,
    )
    by = [F.sum(name).alias(name) for name in ("documents", "units", "bytes")]
    sums = scratch.keep(measured.groupBy("source", "bucket", "split", "language").agg(*by))
    available: dict[str, int] = dict(sums.groupBy("source").agg(F.sum("units")).collect())
    wanted = mixture.wanted_units(available, config)
    quotas = _quotas(sums, wanted, available) if config.mixes() else {name: Quota() for name in available}
    totals = _totals(sums, quotas)
    size = sum(row["bytes"] for row in totals)
    if size < config.minimum_bytes:
        raise Failure(
            f"publish: only {size:,} bytes of text remain, publish.minimum_bytes wants {config.minimum_bytes:,}"
        )
    splits = {name: sum(row["documents"] for row in totals if row["split"] == name) for name in config.kept_tables}
    for name in (name for name in ("validation", "test") if getattr(config, name) and not splits[name]):
        log.warning("publish: no document fell into %s: raise publish.%s", name, name)
    details = {"bytes": size, "splits": splits, "sources": mixture.given(totals, wanted, config)}
    details["languages"] = mixture.languages(totals, config)
    place = partial(mixture.place_all, config=config, seed=seed, quotas=quotas)
    return stages.map_rows(documents, place), details


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish what the input stages kept as tables train, validation and test; the rest is dropped."""
    config: Config = recipe.step("publish")

    def rows(session: SparkSession, _: Attempt, files: list[str], scratch: Scratch) -> tuple[DataFrame, dict[str, Any]]:
        return _rows(session, config, recipe.seed, files, scratch)

    manifest = joined(engine, recipe, "publish", config.input, rows)
    card.write(recipe.root, manifest, config)
    return manifest


if __name__ == "__main__":
    job(step)
