"""Make copies of training documents: synonyms, paraphrases, translations back. ``spark_jobs/augment.py RECIPE``.

What came in is kept as it is; copies go to the table `augmented`, those that did not come about to `failed`.
One pass over the text makes the copies, spread by id over as many tasks as may ask at a time; none is collected.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dataeng import stage, storage
from dataeng.augment import Config, synonyms
from dataeng.augment.copies import Work, checked, copies
from dataeng.cli import UserError
from dataeng.document import DOCUMENT
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.session import Engine, job

NAME = "augment"


def _work(recipe: Recipe, config: Config) -> Work:
    """What a task is told; raises UserError for a dictionary that is none and a key that is not set."""
    variable = config.endpoint.key_variable if config.endpoint else None
    if variable and not os.environ.get(variable):
        raise UserError(f"augment.endpoint.key_variable: the environment variable {variable} is not set")
    dictionary = synonyms.read_dictionary(config.synonyms.dictionary) if config.synonyms else {}
    answers = storage.join(stage.folder_of(recipe.root, NAME), "answers")
    key = os.environ[variable] if variable else None
    return Work(config, recipe.step("publish"), recipe.seed, dictionary, answers, key)


def _facts(session: SparkSession, paths: list[str]) -> list[dict[str, Any]]:
    """By method and rule (null for copies): rows, and the sums of what was recorded of the attempts."""
    names = ("replaced", "requests", "unanswered", "prompt_tokens", "completion_tokens")
    sums = [F.sum(F.col("metadata")[f"augmentation.{name}"].cast("long")).alias(name) for name in names]
    rows = stages.read_files(session, paths, ["metadata", "rule"])
    by = rows.groupBy(F.col("metadata")["augmentation"].alias("method"), "rule")
    return [row.asDict() for row in by.agg(F.count("*").alias("rows"), *sums).collect()]


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Publish tables kept (what came in), augmented and failed."""
    config: Config = recipe.need(NAME)
    names = [config.input] if isinstance(config.input, str) else config.input
    publish = recipe.step("publish")
    splits = {"splits": {"validation": publish.validation, "test": publish.test}}  # copies are made of train alone
    inputs = [*stage.stage_inputs(recipe.root, names, NAME), splits]
    work: list[Work] = []

    def paths() -> list[str]:
        work.append(_work(recipe, config))
        return [str(file["path"]) for file in stages.stage_files(recipe, names)]

    def rows(session: SparkSession, attempt: Attempt, files: list[str]) -> tuple[DataFrame, dict[str, Any]]:
        documents = stages.read_files(session, files, DOCUMENT.names)
        if config.endpoint:
            documents = documents.repartition(config.endpoint.workers, "id")
        made = stages.map_rows(documents, partial(copies, work=work[0]))
        attempt.also += stages.write(made, f"{attempt.data_folder}.augmented")
        details = checked(_facts(session, attempt.also), config)
        return stages.read_files(session, files).withColumn("table", F.lit("kept")), details

    return stages.joined(engine, recipe, NAME, inputs, paths, rows)


if __name__ == "__main__":
    job(step)
