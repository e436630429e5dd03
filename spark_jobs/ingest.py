"""Ready text (JSONL, Parquet) becomes documents.

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
    """Publish the documents of the files that `ingest.input` names."""
    config: Config = recipe.need("ingest")
    files = input_files(config)
    inputs = [{"path": file["file"], "size": file["size"], "tag": file["tag"]} for file in files]
    make_rows = rows_of(engine, "ingest", partial(ingest_file, config=config))
    return sliced(engine, recipe, "ingest", inputs, files, make_rows, from_captures=True)


if __name__ == "__main__":
    job(step)
