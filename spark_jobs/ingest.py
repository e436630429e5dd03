"""Ready text (rows, files, code, questions with answers) becomes documents.

spark-submit spark_jobs/ingest.py RECIPE [KEY=VALUE …]
"""

from __future__ import annotations

from functools import partial

from dataeng.acquire.ingest import Config, ingest_file, input_files
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs.reading import rows_of
from spark_jobs.session import Engine, job
from spark_jobs.stages import sliced


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish the documents of every table of this step (`ingest`, or `step = "ingest"`); the last one's manifest."""
    return [_one(engine, recipe, name) for name in recipe.tables_of("ingest")][-1]


def _one(engine: Engine, recipe: Recipe, name: str) -> Manifest:
    config: Config = recipe.need(name)
    files = input_files(config)
    inputs = [{"path": file["file"], "size": file["size"], "tag": file["tag"]} for file in files]
    make_rows = rows_of(engine, name, partial(ingest_file, config=config, stage=name))
    return sliced(engine, recipe, name, inputs, files, make_rows, from_captures=True)


if __name__ == "__main__":
    job(step)
