"""What occurs more than once, with its first occurrence: counted by an aggregation, told to each holder by a join.

Shuffled, an occurrence: a row of about 100 bytes twice, less once where a task sees a key more than once (the
aggregation combines before it shuffles). A key with n holders makes no task of n rows: its holders are spread over
SALTS tasks, by a hash of their document's id, and its first occurrence is sent to those of them that hold it.
Memory of a task: what Spark's sorting takes, which spills; nothing is gathered by key.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

SALTS = 64  # bits of a long
_KEY = ["kind", "key", "more"]


def repeated(units: DataFrame, minimum: dict[int, int]) -> DataFrame:
    """Those of ``units`` (``dataeng.passages.units``) whose weights sum up to the minimum of their kind.

    Adds ``holders``, the sum, and ``first``, the least of (rank, id, place) among all occurrences of the key.
    """
    salted = units.withColumn("salt", F.pmod(F.xxhash64("id"), F.lit(SALTS)).cast("int"))
    bit = F.expr("shiftleft(1L, salt)")
    counted = salted.groupBy(_KEY).agg(
        F.sum("weight").alias("holders"),
        F.min(F.struct("rank", "id", "place")).alias("first"),
        F.bit_or(bit).alias("salts"),
    )
    enough = F.lit(False)
    for kind, least in minimum.items():
        enough |= (F.col("kind") == kind) & (F.col("holders") >= least)
    present = F.expr(f"filter(sequence(0, {SALTS - 1}), salt -> (shiftrightunsigned(salts, salt) & 1L) = 1L)")
    spread = counted.filter(enough).select(*_KEY, "holders", "first", F.explode(present).alias("salt"))
    return salted.join(spread, [*_KEY, "salt"]).drop("salt")
