"""Publish the corpus: groups mixed to their budgets, documents split into train, validation and test.

Two passes over the text, nothing of it shuffled unless an order is asked for: sums by group, bucket, split and
language first (at most 65,536 rows a group, split and language), then every document placed by itself. A few
numbers a group and language reach the driver.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from dataeng.document import DOCUMENT
from dataeng.publish import Config, card, groups, mixture
from dataeng.publish.mixture import Quota
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.scratch import Scratch, joined
from spark_jobs.session import Engine, job

Quotas = dict[str, Quota]


SUMMED = ("documents", "units", "bytes")


def _quotas(session: SparkSession, sums: DataFrame, wanted: dict[str, float], available: dict[str, int]) -> Quotas:
    """Each group's quota: its cut is the bucket after the last whose running sum fits the rest."""
    parts = {name: mixture.copies_and_rest(units, available[name]) for name, units in wanted.items()}
    rests = session.createDataFrame([(name, rest) for name, (_, rest) in parts.items()], "group string, rest double")
    buckets = sums.groupBy("group", "bucket").agg(F.sum("units").alias("units"))
    running = F.sum("units").over(Window.partitionBy("group").orderBy("bucket"))
    buckets = buckets.filter("units > 0").withColumn("running", running).join(F.broadcast(rests), "group")
    cuts: dict[str, int] = dict(buckets.filter("running <= rest").groupBy("group").agg(F.max("bucket") + 1).collect())
    return {name: Quota(copies, cuts.get(name, 0)) for name, (copies, _) in parts.items()}


def _totals(session: SparkSession, sums: DataFrame, quotas: Quotas) -> list[dict[str, Any]]:
    """By group, source, split and language: documents used, their units (copies in train counted) and their bytes."""
    rows = [(name, quota.copies, quota.cut) for name, quota in quotas.items()]
    known = session.createDataFrame(rows, "group string, copies long, cut long")
    uses = F.col("copies") + (F.col("bucket") < F.col("cut")).cast("long")
    used = sums.join(F.broadcast(known), "group").withColumn("uses", uses).filter("uses > 0")
    times = F.when(F.col("split") == "train", F.col("uses")).otherwise(1)
    found = used.withColumn("units", F.col("units") * times).groupBy("group", "source", "split", "language")
    return [row.asDict() for row in found.agg(*(F.sum(name).alias(name) for name in SUMMED)).collect()]


def _rows(
    session: SparkSession, config: Config, seed: int, files: list[str], scratch: Scratch
) -> tuple[DataFrame, dict[str, Any]]:
    documents = stages.read_files(session, files, DOCUMENT.names)
    measured = stages.map_rows(
        documents.select("id", "text", "source", "language", "scores", "metadata"),
        partial(mixture.measure, config=config, seed=seed),
        mixture.MEASURED,
    )
    by = [F.sum(name).alias(name) for name in SUMMED]
    sums = scratch.keep(measured.groupBy("group", "source", "bucket", "split", "language").agg(*by))
    available: dict[str, int] = dict(sums.groupBy("group").agg(F.sum("units")).collect())
    targets = groups.targets(available, config)
    wanted = {name: target.wanted for name, target in targets.items()}
    quotas = _quotas(session, sums, wanted, available) if config.mixes() else {name: Quota() for name in available}
    totals = _totals(session, sums, quotas)
    details = mixture.details(totals, targets, available, config)
    place = partial(mixture.place_all, config=config, seed=seed, quotas=quotas)
    if config.order is None:
        return stages.map_rows(documents, place, mixture.schema_of(config)), details
    names = documents.select(F.explode(F.map_keys("scores"))).distinct().collect()
    groups.check_order(config.order, sorted(row[0] for row in names))
    return _ordered(documents, place, config), details


def _ordered(documents: DataFrame, place: stages.Rows, config: Config) -> DataFrame:
    """The splits' rows in the curriculum's order: file after file of a split, and inside each."""
    score = F.col("scores")[config.order.score]  # type: ignore[union-attr]
    score = F.when(~F.isnan(score), -score if config.order.descending else score)  # type: ignore[union-attr]
    by = [score.asc_nulls_last(), F.col("id")]
    placed = stages.map_rows(documents.orderBy(*by), place, mixture.schema_of(config))
    return placed.sortWithinPartitions("table", *by)  # what writes a folder a table sorts by `table` alone otherwise


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish what the input stages kept, and its copies, as tables train, validation and test, or drop it."""
    config: Config = recipe.step("publish")

    def rows(session: SparkSession, _: Attempt, files: list[str], scratch: Scratch) -> tuple[DataFrame, dict[str, Any]]:
        return _rows(session, config, recipe.seed, files, scratch)

    manifest = joined(engine, recipe, "publish", config.input, rows, also="augmented")
    card.write(recipe.root, manifest, config)
    return manifest


if __name__ == "__main__":
    job(step)
