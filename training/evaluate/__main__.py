"""``python -m training.evaluate RECIPE [KEY=VALUE …]``: the recipe's evaluations, in one process."""

from __future__ import annotations

from dataeng.recipe import Recipe, main_with_recipe
from training import evaluate
from training.context import Context


def main(recipe: Recipe) -> None:
    """Check and run every table of the step `evaluate`."""
    for name in recipe.tables_of("evaluate"):
        evaluate.check(recipe, name)
        evaluate.run(Context.single(recipe, name))


if __name__ == "__main__":
    main_with_recipe(main, ("dataeng.", "training."))
