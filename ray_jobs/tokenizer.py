"""Step `tokenizer`: a vocabulary from what was published.

One process does it, and no cluster is started, up to `tokenizer.ray_bytes`; of more, Ray Data draws the sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from dataeng import stage, storage
from dataeng.recipe import Recipe
from dataeng.tokens import draw, tokenizer
from ray_jobs import cluster


def drawn(recipe: Recipe, paths: list[str], limit_bytes: int) -> Iterator[dict[str, Any]]:
    """The rows whose ids come first, with at least ``limit_bytes`` of text: two passes of Ray Data over all files."""
    cluster.start(recipe)
    import ray.data

    system = storage.parquet_filesystem(paths[0])[0]
    plain = [storage.parquet_filesystem(path)[1] for path in paths]
    data = ray.data.read_parquet(plain, filesystem=system, columns=draw.COLUMNS)
    blocks: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
    totals: Counter[str] = Counter()
    for row in data.map_batches(draw.weighed, **blocks).iter_rows():
        totals[row["first"]] += row["bytes"]
    up_to = partial(draw.up_to, last=draw.last_first(totals, limit_bytes))
    yield from data.map_batches(up_to, **blocks).iter_rows()


def step(recipe: Recipe) -> stage.Manifest:
    """Learn and publish the tokenizer, or find it done."""
    return tokenizer.make(recipe, drawn=partial(drawn, recipe))


if __name__ == "__main__":
    cluster.job(step)
