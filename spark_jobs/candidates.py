"""Candidates: documents that share a band, brought together in blocks and compared all with all there.

A band of n documents is cut into blocks of at most N (``dedup.block_documents``); inside a block every pair
is compared, so up to N documents in a band nothing is lost to the order of comparing. Of a larger band, each
block's components send their least member (its hub) into the next round, where the hubs are cut into blocks
again, in the order of another band, so that like meets like. Pairs of a larger band whose hubs differ, though
two of their members do not, meet only in a later round or in one of their other bands; bands with more than
N hubs after ``dedup.max_rounds`` are counted as ``bands_cut_off``.

Shuffled, for D documents (one for each distinct text) of W words and B bands: about 90 B bytes a document for
the bands, then 8 W bytes for each distinct block that a document stands in (bands with the same members count
once). A document alone in its bands is not read again; those of larger bands are read once more for all later
rounds. Comparisons: at most N / 2 for each document and band. Memory of a task: one block, 8 N W bytes, and a batch.

A band held by some tens of thousands of documents is numbered in ranges of its order instead of in one task
(``_numbered_in_ranges``); the numbers, and so the blocks, are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.dedup import Config
from dataeng.dedup.against import MARK
from dataeng.dedup.rounds import FOUND, finish
from dataeng.dedup.verify import LINKS, compare
from spark_jobs.scratch import WHOLE_BYTES, Scratch

Sets = Callable[[DataFrame], DataFrame]
COLUMNS = ["id", "root", "matched", "similarity"]
IN_TASK = 8_000_000  # shingles of a band's members that one task compares in all their rounds: 64 MB
SAMPLE, IN_SAMPLE = 256, 128  # one id in 256; a band with 128 of them has about 32,768 documents


def links(
    scratch: Scratch, signed: DataFrame, sets_of: Sets, config: Config
) -> tuple[DataFrame, int, DataFrame | None]:
    """LINKS between near-duplicates (id, root, matched, similarity), the number of bands cut off, the larger bands.

    ``signed`` has ``id``, ``bands`` and ``shingles``; ``sets_of`` gives ``id`` and ``values`` for a frame of distinct
    ids. The larger bands (band, hash) are those of more than a block that were not cut off; None where there is none.
    """
    frames, heavy = [], _heavy(scratch, signed)
    members = signed.select("id", F.explode(_places(config.bands)).alias("band"), "bands")
    larger, unfinished = None, []
    for number in range(config.max_rounds):
        ordered = _ordered(members, number, config.bands)
        blocks = scratch.keep(_blocks(scratch, ordered, heavy, config.block_documents), WHOLE_BYTES)
        frames.append(scratch.keep(_compare(blocks, sets_of, config.threshold), WHOLE_BYTES))
        large = blocks.filter(F.col("size") > config.block_documents)
        bands = large.select("band", "hash").distinct()
        if bands.isEmpty():
            break
        larger = bands if larger is None else larger
        if number + 1 == config.max_rounds:
            unfinished.append(bands)
            break
        members = _hubs(large, frames[-1]).join(signed.select("id", "bands", "shingles"), "id")
        if number == 0:
            members = scratch.keep(members, WHOLE_BYTES)
            sets_of = _among(scratch.keep(sets_of(members.select("id").distinct()), WHOLE_BYTES))
        done, members = _finish(scratch, members, sets_of, number + 1, config)
        frames.append(done.filter("id IS NOT NULL"))
        unfinished.append(done.filter("id IS NULL").select("band", "hash"))
        if members.isEmpty():
            break
    cut_off = 0
    if unfinished and larger is not None:
        cut = reduce(DataFrame.union, unfinished)
        cut_off = cut.count()
        done_bands = larger.join(cut, ["band", "hash"], "left_anti") if cut_off else larger
        larger = None if done_bands.isEmpty() else done_bands
    return reduce(DataFrame.unionByName, [frame.select(*COLUMNS) for frame in frames]), cut_off, larger


def _finish(
    scratch: Scratch, members: DataFrame, sets_of: Sets, number: int, config: Config
) -> tuple[DataFrame, DataFrame]:
    """The rounds from ``number`` on of bands whose sets fit one task, each in one; the members of the others."""
    sizes = members.groupBy("band", "hash").agg(F.sum("shingles").alias("values"))
    fitting = sizes.filter(F.col("values") <= IN_TASK).select("band", "hash")
    mine = members.join(fitting, ["band", "hash"], "left_semi").select("band", "hash", "id", "bands")
    together = mine.join(sets_of(mine.select("id").distinct()), "id").select("band", "hash", "id", "bands", "values")
    grouped = together.repartition("band", "hash").sortWithinPartitions("band", "hash", "id")
    rows = grouped.mapInArrow(partial(finish, first_round=number, config=config), from_arrow_schema(FOUND))
    return scratch.keep(rows, WHOLE_BYTES), members.join(fitting, ["band", "hash"], "left_anti")


def between_survivors(
    scratch: Scratch, survivors: DataFrame, larger: DataFrame, sets_of: Sets, config: Config
) -> DataFrame:
    """LINKS between survivors that share one of the ``larger`` bands, where not all pairs were compared before.

    In a band that was not cut off at most a block of clusters is left, so all of them are compared, and no two
    documents that share a band which was not cut off survive at or above the threshold.
    """
    placed = survivors.select("id", "bands", F.posexplode("bands").alias("band", "hash"))
    members = placed.join(larger, ["band", "hash"], "left_semi").select("id", "band", "bands")
    blocks = scratch.keep(_blocks(scratch, _ordered(members, 0, config.bands), None, config.block_documents))
    return scratch.keep(_compare(blocks, sets_of, config.threshold), WHOLE_BYTES).select(*COLUMNS)


def _among(sets: DataFrame) -> Sets:
    return lambda ids: sets.join(ids, "id", "left_semi")


def _places(bands: int) -> Column:
    return F.array(*(F.lit(band) for band in range(bands)))


def _ordered(members: DataFrame, number: int, bands: int) -> DataFrame:
    """Members with their band's hash, and the hash of another band to order them by."""
    following = (F.col("band") + 1 + number) % bands
    columns = [F.col("bands")[F.col("band")].alias("hash"), F.col("bands")[following].alias("other")]
    return members.select("id", "band", *columns)


def _heavy(scratch: Scratch, signed: DataFrame) -> DataFrame | None:
    """Bands of very many documents, by a sample that hangs on the ids alone; None where there is none.

    The sample decides how a band is numbered and not what comes out. The frame has at most one row for each
    SAMPLE x IN_SAMPLE / B documents: 2 kB a million.
    """
    if signed.count() < SAMPLE * IN_SAMPLE:
        return None
    sample = signed.filter(F.pmod(F.xxhash64("id"), F.lit(SAMPLE)) == 0)
    bands = sample.select(F.posexplode("bands").alias("band", "hash")).groupBy("band", "hash").count()
    heavy = scratch.keep(bands.filter(F.col("count") >= IN_SAMPLE).select("band", "hash"), WHOLE_BYTES)
    return None if heavy.isEmpty() else heavy


def _blocks(scratch: Scratch, members: DataFrame, heavy: DataFrame | None, documents: int) -> DataFrame:
    """A row for each block: its band and hash, the band's size, the ids in order, a key of the set of ids."""
    if heavy is None:
        return _cut(_numbered(members), documents)
    few = F.broadcast(heavy)
    light = _cut(_numbered(members.join(few, ["band", "hash"], "left_anti")), documents)
    ranges = _numbered_in_ranges(scratch, members.join(few, ["band", "hash"], "left_semi"))
    return light.unionByName(_cut(ranges, documents))


def _numbered(members: DataFrame) -> DataFrame:
    """Members with their place in their band and its size."""
    band = Window.partitionBy("band", "hash")
    place = F.row_number().over(band.orderBy("other", "id"))
    return members.withColumn("place", place).withColumn("size", F.count("*").over(band))


def _numbered_in_ranges(scratch: Scratch, members: DataFrame) -> DataFrame:
    """What ``_numbered`` gives, by ranges of the order: each is numbered by itself, after all that come before."""
    order = ["band", "hash", "other", "id"]
    ranges = members.repartitionByRange(*order).sortWithinPartitions(*order)
    ranges = scratch.keep(ranges.withColumn("range", F.spark_partition_id()))
    band = Window.partitionBy("band", "hash")
    before = F.sum("count").over(band.orderBy("range").rowsBetween(Window.unboundedPreceding, -1))
    counts = ranges.groupBy("band", "hash", "range").count()
    counts = counts.withColumn("size", F.sum("count").over(band)).withColumn("before", F.coalesce(before, F.lit(0)))
    inside = Window.partitionBy("band", "hash", "range").orderBy("other", "id")
    numbered = ranges.withColumn("inside", F.row_number().over(inside))
    joined = numbered.join(F.broadcast(counts.drop("count")), ["band", "hash", "range"])
    return joined.withColumn("place", F.col("inside") + F.col("before")).drop("range", "inside", "before")


def _cut(numbered: DataFrame, documents: int) -> DataFrame:
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
