"""The model steps of a recipe one after another in one Ray cluster: what is finished is skipped."""

from __future__ import annotations

from collections.abc import Callable

from dataeng.recipe import Recipe
from ray_jobs import cluster, evaluate, tokenizer, tokens, train, tune

STEPS: tuple[tuple[str, Callable[[Recipe], object]], ...] = (
    ("tokenizer", tokenizer.step),
    ("tokens", tokens.step),
    ("train", train.step),
    ("tune", tune.step),
    ("evaluate", evaluate.step),
)


def step(recipe: Recipe) -> None:
    """Run every model step that the recipe has a table for, in order."""
    for name, run_step in STEPS:
        if name in recipe:
            run_step(recipe)


if __name__ == "__main__":
    cluster.job(step, ("dataeng.", "training."))
