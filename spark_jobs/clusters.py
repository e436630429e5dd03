"""Who stands for whom: equal ids, equal texts, clusters of near-duplicates, in frames without texts."""

from __future__ import annotations

from functools import partial

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dataeng.dedup import Config, decide
from spark_jobs import stages

PLACE = ["path", "row"]


def with_places(documents: DataFrame) -> DataFrame:
    """Documents with the place of their row in the input's files, which tells rows of one id apart."""
    return documents.select("*", F.col("_metadata.file_path").alias("path"), F.col("_metadata.row_index").alias("row"))


def sign(documents: DataFrame, config: Config) -> DataFrame:
    """A row without text for each document: hashes, bands, rank."""
    columns = ["id", "text", "date", "scores", "file", "offset", "row_hash", *PLACE]
    return stages.map_rows(documents.select(*columns), partial(decide.sign, config=config), decide.LIGHT)


def light(signed: DataFrame) -> DataFrame:
    """Signed rows with whether each is the first of its id, its text's representative, and who stands for that."""
    of_id = Window.partitionBy("id").orderBy("file", "offset", "row_hash", *PLACE)
    of_text = Window.partitionBy("text_hash").orderBy(F.col("first").desc(), "rank", "id")
    first = signed.withColumn("first", F.row_number().over(of_id) == 1)
    known = first.withColumn("text_hash", F.first("exact").over(of_id))  # of the row that stands for the id
    chosen = {"representative": F.first("id").over(of_text), "stands": F.first("stands").over(of_text)}
    return known.withColumns(chosen).drop("file", "offset", "row_hash")


def clusters(firsts: DataFrame, found: DataFrame, stars: DataFrame) -> DataFrame:
    """For each representative with a near-duplicate: survivor, cluster key, nearest neighbour."""
    roots = stars.select(F.col("root").alias("node"), "root").distinct()
    nodes = stars.select("node", "root").union(roots).withColumnRenamed("node", "id")
    ranked = nodes.join(firsts.select("id", "rank", "exact", "stands"), "id")
    best = F.min(F.struct("rank", "stands"))["stands"].alias("survivor")
    chosen = ranked.groupBy("root").agg(best, F.min("exact").alias("cluster"))
    away = F.struct((1 - F.col("similarity")).alias("away"), "matched", "similarity")
    nearest = (
        found.groupBy("id").agg(F.min(away).alias("nearest")).select("id", "nearest.matched", "nearest.similarity")
    )
    joined = nodes.join(chosen, "root").join(nearest, "id")
    return joined.select(F.col("id").alias("representative"), "survivor", "cluster", "matched", "similarity")


def decided(documents: DataFrame, near: DataFrame) -> DataFrame:
    """``documents`` (from ``light``) with their survivor, cluster key and, if near-duplicates, nearest neighbour."""
    survivor = F.coalesce("survivor", "stands").alias("survivor")
    cluster = F.coalesce("cluster", "text_hash").alias("cluster")
    columns = [*PLACE, "id", "first", "text_hash", "shingles", "bands", "representative", "matched", "similarity"]
    return documents.join(near, "representative", "left").select(*columns, survivor, cluster)
