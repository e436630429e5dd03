"""The data steps of a recipe one after another in one Spark session: what is finished is skipped."""

from __future__ import annotations

from dataeng.dedup import scores
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs import augment, decontaminate, dedup, extract, filter, ingest, passages, publish, semantic
from spark_jobs.session import Engine, job

STEPS = (
    ("extract", extract.step),
    ("ingest", ingest.step),
    ("filter", filter.step),
    ("decontaminate", decontaminate.step),
    ("dedup", dedup.step),
    ("passages", passages.step),
    ("semantic", semantic.step),
    ("augment", augment.step),
    ("publish", publish.step),
)


def step(engine: Engine, recipe: Recipe) -> Manifest | None:
    """Run every data step that the recipe has a table for, in order; the last one's manifest."""
    scores.check_recipe(recipe)
    manifest = None
    for name, run_step in STEPS:
        if name in recipe or (name == "ingest" and "ingest" in map(recipe.kind, recipe.tables)):
            manifest = run_step(engine, recipe)
    return manifest


if __name__ == "__main__":
    job(step)
