"""Semantic deduplication: vectors, k-means on a sample, cosines inside clusters; one document of those alike stays.

For N documents, K clusters and D dimensions: a vector is D bytes, written once; shuffled are D + 150 bytes a document
twice (into clusters, into blocks), 100 bytes for each that goes, and every text once, in the last join. To the driver
come the K centres (K D bytes) and, without a model, the counts of words (at most 2^20, 16 MB), which go out again to
every worker (4 MB). One task makes the centres from a sample: 10 D bytes for each of its documents. Memory of a task
otherwise: a block, (D + 300) bytes for each of at most `block_documents`, and 24 x 256 for each that stays. Time: 2 K D
for a document's cluster, then 2 D for each of its block's documents that stay.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.dedup import scores
from dataeng.document import DOCUMENT
from dataeng.recipe import Recipe
from dataeng.semantic import Config, decide, hashed, model
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.clusters import PLACE, with_places
from spark_jobs.scratch import Scratch, joined
from spark_jobs.session import Engine, job

NAME = "semantic"
_BLOCKED = pa.schema([*decide.ASSIGNED, ("block", pa.int64())])


def _weights(documents: DataFrame, count: int) -> NDArray[np.float32]:
    """The rarity of each bucket of words."""
    counts = stages.map_rows(documents.select("text"), decide.count_words, decide.COUNTS)
    held = np.zeros(hashed.BUCKETS, np.int64)
    found = counts.groupBy("bucket").agg(F.sum("documents").alias("documents")).toArrow()
    held[found["bucket"].to_numpy()] = found["documents"].to_numpy()
    return hashed.rarity(held, count)


def _vectors(session: SparkSession, documents: DataFrame, count: int, config: Config) -> DataFrame:
    held = session.sparkContext.broadcast(None if config.model else _weights(documents, count))
    columns = documents.select("id", "text", "date", "scores", *PLACE)
    return stages.map_rows(columns, lambda batches: decide.embed(batches, config, held.value), decide.EMBEDDED)


def _clustered(
    session: SparkSession, scratch: Scratch, vectors: DataFrame, k: int, seed: int, config: Config
) -> DataFrame:
    """Each document that has a vector with its cluster."""
    able = vectors.filter("vector IS NOT NULL")
    order = [F.xxhash64(F.lit(seed), "id"), F.col("id"), *(F.col(name) for name in PLACE)]
    sample = able.orderBy(*order).limit(config.sample_for(k)).select("vector").coalesce(1)
    found = stages.map_rows(sample, partial(decide.centres, k=k, config=config, seed=seed), decide.CENTRES)
    rows = scratch.keep(found).orderBy("cluster").collect()
    if not rows:
        return session.createDataFrame([], from_arrow_schema(decide.ASSIGNED))
    held = session.sparkContext.broadcast(decide.as_vectors(bytes(row["vector"]) for row in rows))
    return stages.map_rows(able, lambda batches: decide.assign(batches, held.value, config), decide.ASSIGNED)


def _blocks(clustered: DataFrame, documents: int) -> DataFrame:
    """Clusters cut into blocks of so many documents: those as close to the centre as each other come together."""
    place = F.row_number().over(Window.partitionBy("cluster").orderBy("closeness", "id", *PLACE))
    return clustered.withColumn("block", F.floor((place - 1) / documents))


def _rows(
    session: SparkSession, attempt: Attempt, files: list[str], scratch: Scratch, seed: int
) -> tuple[DataFrame, dict[str, Any]]:
    config: Config = attempt.config  # type: ignore[assignment]
    documents = with_places(stages.read_files(session, files, [*DOCUMENT.names, "row_hash"]))
    count = documents.count()
    k = config.clusters_for(count)
    vectors = scratch.keep(_vectors(session, documents, count, config))
    blocks = scratch.keep(_blocks(_clustered(session, scratch, vectors, k, seed, config), config.block_documents))
    sizes = blocks.groupBy("cluster").agg(F.count("*").alias("size"), F.max("block").alias("last"))
    facts = sizes.agg(F.count("*"), F.max("size"), F.expr("count_if(last > 0)"), F.sum("size")).first()
    ranked = blocks.repartition("cluster", "block").sortWithinPartitions("cluster", "block", "rank", "id", *PLACE)
    gone = stages.map_rows(
        ranked.select(_BLOCKED.names), partial(decide.compare, threshold=config.threshold), decide.GONE
    )
    clusters, largest, cut, able = (int(value or 0) for value in facts or (0, 0, 0, 0))
    details = {"clusters": clusters, "largest_cluster": largest, "clusters_cut": cut, "without_words": count - able}
    decided = documents.join(scratch.keep(gone), PLACE, "left")
    return stages.map_rows(decided, partial(decide.decide, config=config)), details


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the input stages' documents without those that say what another one says."""
    config: Config = recipe.step(NAME)
    if config.model:
        model.check(config.model)
    scores.check(recipe, NAME, config.keep, config.input)
    return joined(engine, recipe, NAME, config.input, partial(_rows, seed=recipe.seed))


if __name__ == "__main__":
    job(step)
