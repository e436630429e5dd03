"""Connected components by large-star and small-star (Kiveris et al., SoCC 2014), to a proven fixpoint.

An edge (node, root) has ``root < node``. Large-star ties the larger neighbours of a node to its least
neighbour, small-star the smaller ones; both keep components connected, and together they halve what
is left of a chain. The rounds end when each node is tied to one root and no root is tied to
another: then every component is one star, whatever happened before. Rounds needed: about log2 of the longest
path; each is written to storage. Shuffled: two copies of each edge a round (two ids, 64 bytes).
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.scratch import WHOLE_BYTES, Scratch

MAX_ROUNDS = 100  # chains of 10^9 nodes need about 30


class NotConverged(Exception):
    """Components were still changing after the last round: nothing is published."""


def components(scratch: Scratch, edges: DataFrame, max_rounds: int = MAX_ROUNDS) -> tuple[DataFrame, int]:
    """(node, root) for every node with an edge but the roots themselves, and the rounds it took.

    ``edges`` has ``node`` and ``root`` (any two ids, in any order). Raises NotConverged.
    """
    pair = [F.greatest("node", "root").alias("node"), F.least("node", "root").alias("root")]
    stars = scratch.keep(edges.filter("node != root").select(*pair).distinct(), WHOLE_BYTES)
    for number in range(max_rounds):
        if _is_stars(stars):
            return stars, number
        stars = scratch.keep(_small_star(_large_star(stars)), WHOLE_BYTES)
    raise NotConverged(f"connected components have not converged after {max_rounds} rounds")


def _neighbours(edges: DataFrame) -> DataFrame:
    """Each edge seen from both ends: ``node`` and its ``other``."""
    turned = edges.select(F.col("root").alias("node"), F.col("node").alias("other"))
    return edges.select("node", F.col("root").alias("other")).union(turned)


def _large_star(edges: DataFrame) -> DataFrame:
    neighbours = _neighbours(edges)
    seen = neighbours.join(_least(neighbours, "other"), "node").withColumn("root", F.least("node", "least"))
    return seen.filter("other > node").select(F.col("other").alias("node"), "root").distinct()


def _small_star(edges: DataFrame) -> DataFrame:
    seen = edges.join(_least(edges, "root"), "node")
    smaller = seen.filter("root != least").select(F.col("root").alias("node"), F.col("least").alias("root"))
    return smaller.union(seen.select("node", F.col("least").alias("root"))).distinct()


def _least(edges: DataFrame, column: str) -> DataFrame:
    """Each node's least neighbour. Joined and not a window: a node's edges need not come together in one task."""
    return edges.groupBy("node").agg(F.min(column).alias("least"))


def _is_stars(edges: DataFrame) -> bool:
    """Whether each node has either larger neighbours only, or exactly one neighbour, a smaller one."""
    ends = _neighbours(edges).groupBy("node").agg(F.min("other").alias("least"), F.count("*").alias("neighbours"))
    return ends.filter("least < node AND neighbours > 1").isEmpty()
