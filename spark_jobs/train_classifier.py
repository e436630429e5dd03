"""Train classifiers from labelled texts: spark-submit spark_jobs/train_classifier.py RECIPE [KEY=VALUE …].

Every table of this step gives a model of its own; tables beside `train_classifier` say so by their key `step`.
The examples (at most `most_examples`) are held by the driver, where one thread trains;
Spark reads the sources and looks for the examples in the captures that are to be left out.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import PurePath
from typing import Any

import numpy as np

from dataeng import stage, storage
from dataeng import train_classifier as logic
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from dataeng.train_classifier import Config, Example
from spark_jobs.session import Engine, job

log = logging.getLogger("millrace")
NAME = "train_classifier"


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Train every table of this step, in the recipe's order; returns the last one's manifest."""
    names = recipe.tables_of(NAME)
    for config in map(recipe.need, names):
        config.files()  # every source must be there before an engine starts
    return [_step(engine, recipe, name) for name in names][-1]


def _step(engine: Engine, recipe: Recipe, name: str) -> Manifest:
    """Publish `model.ftz` (or `model.npz`) and `metrics.json` in the table's folder."""
    config: Config = recipe.need(name)
    attempt = stage.begin(recipe, name, [])
    manifest = attempt if isinstance(attempt, Manifest) else _trained(engine, recipe, config, attempt)
    if config.copy_to:
        folder = stage.folder_of(recipe.root, name)
        for path in stage.table_paths(folder, manifest, "model"):
            storage.write_bytes(config.copy_to + PurePath(path).suffix, storage.read_bytes(path))
    return manifest


def _trained(engine: Engine, recipe: Recipe, config: Config, attempt: Attempt) -> Manifest:
    examples, excluded = _examples(engine, config)
    trained, held = logic.split(examples, config)
    log.info("%s: training on %d examples, %d held back, %d left out", attempt.stage, len(trained), len(held), excluded)
    model = logic.train(trained, config, recipe.seed)
    return _published(attempt, config, model, trained, held, excluded)


def _examples(engine: Engine, config: Config) -> tuple[list[Example], int]:
    """The examples in their order, and how many were left out because they stand in captures."""
    context = engine.session().sparkContext
    sources = context.parallelize(config.input, len(config.input))
    read = sources.flatMap(lambda source: [tuple(example) for example in logic.limited(config, source)]).collect()
    examples = logic.ordered(map(Example._make, read), config)
    files = logic.excluded_files(config)
    if not files:
        return examples, 0
    wanted = context.broadcast(np.unique(np.concatenate([logic.own_shingles(example) for example in examples])))
    found = (
        context.parallelize(files, len(files)).map(lambda path: logic.found_in_capture(path, wanted.value)).collect()
    )
    kept = logic.without(examples, np.unique(np.concatenate(found)))
    return kept, len(examples) - len(kept)


def _published(
    attempt: Attempt, config: Config, model: bytes, trained: list[Example], held: list[Example], excluded: int
) -> Manifest:
    folder = attempt.data_folder
    name = "model.npz" if config.kind == "linear" else "model.ftz"
    paths = {name: storage.join(folder, name) for name in (name, "metrics.json")}
    storage.write_bytes(paths[name], model)
    counts = {"trained": len(trained), "held_back": len(held), "excluded": excluded}
    by_class = Counter(f"{example.source}: {example.label}" for example in trained)
    found: dict[str, Any] = (
        counts | {"bytes": len(model), "examples": dict(sorted(by_class.items()))} | logic.metrics(model, held, config)
    )
    storage.write_bytes(paths["metrics.json"], (json.dumps(found, indent=1) + "\n").encode())
    overall = found["held_back"]["all"]
    log.info(
        "%s: ROC-AUC %s, F1 %s, %d bytes", attempt.stage, overall["roc_auc"], overall["positive"]["f1"], len(model)
    )
    tables = {"model": stage.file_table(attempt.folder, list(paths.values()))}
    return attempt.publish(attempt.manifest(tables=tables, counts=counts, details=found))


if __name__ == "__main__":
    job(step)
