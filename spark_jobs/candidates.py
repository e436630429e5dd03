"""Candidates: documents that share a band, brought together in blocks and compared all with all there.

A band of n documents is cut into blocks of at most N (``dedup.block_documents``); inside a block every pair
is compared, so up to N documents in a band nothing is lost to the order of comparing. Of a larger band, each
block's components send their least member (its hub) into the next round, where the hubs are cut into blocks
again, in the order of another band, so that like meets like. Pairs of a larger band whose hubs differ, though
two of their members do not, meet only in a later round or in one of their other bands; bands with more than
N hubs after ``dedup.max_rounds`` are counted as ``bands_cut_off``.

Shuffled, for D documents (one for each distinct text) of W words and B bands: about 90 B bytes a document for
the bands, then 8 W bytes for each distinct block that a document stands in (bands with the same members count
once). A document alone in its bands is not read again. Comparisons: at most N / 2 for each document and
band. Memory of a task: one block, 8 N W bytes, and a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.dedup import Config
from dataeng.dedup.against import MARK
from dataeng.dedup.verify import LINKS, compare
from spark_jobs.scratch import Scratch

Sets = Callable[[DataFrame], DataFrame]


def links(scratch: Scratch, signed: DataFrame, sets_of: Sets, config: Config) -> tuple[DataFrame, int]:
    """LINKS between near-duplicates (id, root, matched, similarity), and the number of bands cut off.

    ``signed`` has ``id`` and ``bands``; ``sets_of`` gives ``id`` and ``values`` for a frame of distinct ids.
    """
    frames, cut_off = [], 0
    members = signed.select("id", F.explode(_places(config.bands)).alias("band"), "bands")
    for number in range(config.max_rounds):
        blocks = scratch.keep(_blocks(_ordered(members, number, config.bands), config.block_documents))
        frames.append(scratch.keep(_compare(blocks, sets_of, config.threshold)))
        large = blocks.filter(F.col("size") > config.block_documents)
        cut_off = large.select("band", "hash").distinct().count()
        if not cut_off:
            break
        members = _hubs(large, frames[-1]).join(signed.select("id", "bands"), "id")
    return reduce(DataFrame.unionByName, frames), cut_off


def _places(bands: int) -> Column:
    return F.array(*(F.lit(band) for band in range(bands)))


def _ordered(members: DataFrame, number: int, bands: int) -> DataFrame:
    """Members with their band's hash, and the hash of another band to order them by."""
    following = (F.col("band") + 1 + number) % bands
    columns = [F.col("bands")[F.col("band")].alias("hash"), F.col("bands")[following].alias("other")]
    return members.select("id", "band", *columns)


def _blocks(members: DataFrame, documents: int) -> DataFrame:
    """A row for each block: its band and hash, the band's size, the ids in order, a key of the set of ids."""
    band = Window.partitionBy("band", "hash")
    place = F.row_number().over(band.orderBy("other", "id"))
    numbered = members.withColumn("place", place).withColumn("size", F.count("*").over(band))
    shared = numbered.filter(F.col("size") > 1)
    block = F.floor((F.col("place") - 1) / documents).alias("block")
    gathered = shared.groupBy("band", "hash", block).agg(
        F.max("size").alias("size"), F.sort_array(F.collect_list("id")).alias("ids")
    )
    return gathered.withColumn("group", F.xxhash64("ids")).drop("block")


def _compare(blocks: DataFrame, sets_of: Sets, threshold: float) -> DataFrame:
    # Blocks of earlier runs' documents alone were compared in their own run.
    told = blocks.filter((F.size("ids") > 1) & F.exists("ids", lambda name: ~name.contains(MARK)))
    distinct = told.select("group", "ids").dropDuplicates(["group"])
    members = distinct.select("group", F.explode("ids").alias("id"))
    together = members.join(sets_of(members.select("id").distinct()), "id").select("group", "id", "values")
    grouped = together.repartition("group").sortWithinPartitions("group", "id")
    return grouped.mapInArrow(partial(compare, threshold=threshold), from_arrow_schema(LINKS))


def _hubs(large: DataFrame, found: DataFrame) -> DataFrame:
    """The hubs of large bands: of each block, the least member of each component."""
    members = large.select("band", "hash", "group", F.explode("ids").alias("id"))
    roots = members.join(found.select("group", "id", "root"), ["group", "id"], "left")
    return roots.select("band", "hash", F.coalesce("root", "id").alias("id")).distinct()
