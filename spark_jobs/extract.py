"""Captures (WARC) become documents.

spark-submit spark_jobs/extract.py RECIPE [KEY=VALUE …]
"""

from __future__ import annotations

from functools import partial

from dataeng.extract import Config
from dataeng.extract.captures import extract_file, input_entries, input_files
from dataeng.extract.repeats import look
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs.reading import rows_of
from spark_jobs.session import Engine, job
from spark_jobs.stages import sliced

ONCE_BYTES = 64 << 20  # of captures in a slice, from which looking for repeats costs less than it saves


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the documents of the captures that `extract.input` names."""
    config: Config = recipe.need("extract")
    files = input_files(recipe, config)
    inputs = input_entries(recipe, config, files)
    find = None if config.once is False else partial(look, config=config)
    look_from = 0 if config.once else ONCE_BYTES
    make_rows = rows_of(engine, "extract", partial(extract_file, config=config), find, look_from)
    return sliced(engine, recipe, "extract", inputs, files, make_rows, from_captures=True)


if __name__ == "__main__":
    job(step)
