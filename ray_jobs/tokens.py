"""Step `tokens`: published tables become token shards, tokenised by Ray Data, in the order of source and id,
or of source and the score that `publish.order` names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from dataeng import stage, storage, tokens
from dataeng.recipe import Recipe
from dataeng.tokens import shards, tokenizer
from ray_jobs import cluster

log = logging.getLogger("millrace")


def encoded(paths: list[str], encode: Any, batch_documents: int) -> Iterator[dict[str, Any]]:
    """Rows with `path`, `source`, `id`, `repeat` and `tokens`, in any order: one pass of Ray Data over all files."""
    import ray.data

    system = storage.parquet_filesystem(paths[0])[0]
    plain = [storage.parquet_filesystem(path)[1] for path in paths]
    data = ray.data.read_parquet(plain, filesystem=system, include_paths=True)
    texts = data.select_columns(["id", "source", "text", "scores", "metadata", "path"])
    batches = texts.map_batches(encode, batch_size=batch_documents, batch_format="numpy")
    return iter(batches.iter_rows())


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
    splits = {file: split for split in tokens.SPLITS for file in stage.table_paths(folder, published, split)}
    by_name = {storage.parquet_filesystem(file)[1]: split for file, split in splits.items()}
    encode = tokens.encoder(path, tokens.order_of(recipe.root, config.input))
    rows = encoded(list(splits), encode, config.batch_documents)
    with tokens.Spool() as spool:
        for row in rows:
            spool.add(by_name[row["path"].partition("://")[2] or row["path"]], row)
        written = {split: spool.write(split, attempt.data_folder, config, dtype) for split in tokens.SPLITS}
    manifest = tokens.finish(attempt, recipe, written, vocabulary, dtype)
    log.info("tokens: %s", ", ".join(f"{key} {value:,}" for key, value in manifest.counts.items()))
    return manifest


if __name__ == "__main__":
    cluster.job(step)
