"""Documents of earlier runs that a new corpus must not hold again: met as signatures, read only to verify.

Shuffled: the hashes and bands of the earlier runs' signatures (about 16 + 16 B bytes a document for B bands,
joined with the new corpus's), then the rows of those that share a text's hash or a band with a new document,
and the texts of these alone. Earlier documents are written ``RUN#ID``; they outrank every new one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.dedup import decide
from dataeng.dedup.against import MARK, Earlier
from spark_jobs import stages

_PLACE_OF_EARLIER = -1  # no row of the input has this number


def is_earlier(identifier: str = "id") -> Column:
    """Whether an id is that of an earlier run's document."""
    return F.col(identifier).contains(MARK)


def _named(run: Earlier, column: str) -> Column:
    """``RUN#ID``; an id that names its run already stays as it is."""
    own = F.concat(F.lit(run.root + MARK), F.col(column))
    return F.when(F.col(column).contains(MARK), F.col(column)).otherwise(own).alias(column)


def signatures(session: SparkSession, runs: Sequence[Earlier]) -> DataFrame | None:
    """The signatures of all earlier runs: id, exact, shingles, bands, survivor."""
    found = None
    for run in runs:
        if paths := run.paths("signatures"):
            own = session.read.schema(from_arrow_schema(decide.SIGNATURES)).parquet(*paths)
            own = own.select(_named(run, "id"), "exact", "shingles", "bands", _named(run, "survivor"))
            found = own if found is None else found.unionByName(own)
    return found


def meeting(earlier: DataFrame, signed: DataFrame) -> DataFrame:
    """The earlier documents that share their text's hash or a band with one of ``signed``, as rows like those."""
    equal = earlier.join(signed.select("exact").distinct(), "exact", "left_semi").select("id")
    bands = F.posexplode("bands").alias("band", "hash")
    new = signed.select(bands).distinct()
    similar = earlier.select("id", bands).join(new, ["band", "hash"], "left_semi").select("id")
    met = earlier.join(equal.union(similar).distinct(), "id", "left_semi")
    place = [F.col("id").alias("path"), F.lit(_PLACE_OF_EARLIER).cast("long").alias("row")]
    absent = [F.lit(None).cast(kind).alias(name) for name, kind in (("file", "string"), ("offset", "long"))]
    rank = F.lit(float("-inf")).alias("rank")
    columns = [
        F.col("id"),
        F.col("exact").alias("row_hash"),
        *map(F.col, ("exact", "shingles", "bands")),
        F.col("survivor").alias("stands"),
    ]
    return met.select(*place, *absent, rank, *columns)


def sets(session: SparkSession, runs: Sequence[Earlier], ids: DataFrame, words: int) -> DataFrame | None:
    """The shingle sets of those of ``ids`` that are earlier documents."""
    texts = None
    for run in runs:
        for table in ("kept", "dropped"):
            if paths := run.paths(table):
                rows = stages.read_files(session, paths, ["id", "text", "rule"])
                firsts = rows.filter("rule IS NULL OR rule != 'duplicate_id'") if table == "dropped" else rows
                own = firsts.select(_named(run, "id"), "text").join(ids, "id", "left_semi")
                texts = own if texts is None else texts.unionByName(own)
    return texts if texts is None else stages.map_rows(texts, decide.sets_of(words), decide.SETS)


def only_new(done: DataFrame) -> DataFrame:
    """Rows without those of earlier documents."""
    return done.filter(F.col("row") != _PLACE_OF_EARLIER)
