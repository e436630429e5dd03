"""``python -m training.evaluate RECIPE [KEY=VALUE …]``: the step `evaluate` in one process."""

from __future__ import annotations

from dataeng.recipe import Recipe, main_with_recipe
from training import evaluate
from training.context import Context


def main(recipe: Recipe) -> None:
    """Check and run the step."""
    evaluate.check(recipe, "evaluate")
    evaluate.run(Context.single(recipe, "evaluate"))


if __name__ == "__main__":
    main_with_recipe(main, ("dataeng.", "training."))
