"""Step `tokens`: published tables become token shards, tokenised by Ray Data, in the order of source and id."""

from __future__ import annotations

import logging
from typing import Any

from dataeng import stage, storage, tokens
from dataeng.recipe import Recipe
from dataeng.tokens import shards, tokenizer
from ray_jobs import cluster

log = logging.getLogger("millrace")


def rows_in_order(paths: list[str], encode: Any, batch_documents: int) -> Any:
    """Rows with `source`, `id` and `tokens`, sorted: the same for any number of blocks and files."""
    import ray.data

    plain = [storage.parquet_filesystem(path)[1] for path in paths]
    data = ray.data.read_parquet(
        plain, columns=["id", "source", "text"], filesystem=storage.parquet_filesystem(paths[0])[0]
    )
    encoded = data.map_batches(encode, batch_size=batch_documents, batch_format="numpy")
    return encoded.sort(["source", "id"]).iter_rows()


def step(recipe: Recipe) -> stage.Manifest:
    """Tokenise the three tables and publish their shards, or find them done."""
    attempt = tokens.begin(recipe, "tokens")
    if isinstance(attempt, stage.Manifest):
        return attempt
    config: tokens.Config = recipe.step("tokens")
    folder = stage.folder_of(recipe.root, config.input)
    published = stage.need_manifest(recipe.root, config.input, "tokens")
    path = tokenizer.path_of(recipe.root, config.tokenizer, "tokens")
    vocabulary = tokenizer.load(path).get_vocab_size()
    dtype = shards.type_for(vocabulary)
    cluster.start(recipe)
    written = {}
    for split in tokens.SPLITS:
        paths = stage.table_paths(folder, published, split)
        rows = rows_in_order(paths, tokens.encoder(path), config.batch_documents) if paths else []
        written[split] = tokens.write_split(rows, attempt.data_folder, split, config, dtype)
    manifest = tokens.finish(attempt, recipe, written, vocabulary, dtype)
    log.info("tokens: %s", ", ".join(f"{key} {value:,}" for key, value in manifest.counts.items()))
    return manifest


if __name__ == "__main__":
    cluster.job(step)
