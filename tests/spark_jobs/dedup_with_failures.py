"""The step with tasks that fail the first time they run: ``dedup_with_failures.py ROOT SETTINGS SHINGLES`` (JSON).

Each task over documents dies at its first attempt after its first batch, as if its machine had gone. A process of
its own, since the session of the other tests does not run a task twice. Prints how many died.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pyspark import TaskContext

from dataeng.dedup import decide, whole
from dataeng.recipe import Recipe
from spark_jobs import dedup
from spark_jobs.session import Engine


def failing(function: Callable, marks: str) -> Callable:
    """``function`` over batches, dying after the first one where the task runs for the first time."""

    def once(batches: Iterable, **settings: object) -> Iterator:
        task = TaskContext.get()
        for batch in function(batches, **settings):
            if task is not None and task.attemptNumber() == 0:
                Path(marks, f"{task.stageId()}-{task.partitionId()}").touch()
                yield batch
                raise RuntimeError("this task's machine is gone")
            yield batch

    return once


def main() -> None:
    root, settings = sys.argv[1], json.loads(sys.argv[2])
    dedup.IN_ONE_TASK = int(sys.argv[3])
    marks = f"{root}/marks"
    os.makedirs(marks)
    for name in ("sign", "decide", "signatures"):
        setattr(decide, name, failing(getattr(decide, name), marks))
    whole.near_duplicates = failing(whole.near_duplicates, marks)
    conf = {"spark.sql.adaptive.coalescePartitions.enabled": "false"}
    spark = {"master": "local[2,3]", "driver_memory": "1g", "partitions": 3, "conf": conf}
    recipe = Recipe("test.toml", root, 0, {"spark": spark, "dedup": {"input": "texts", **settings}})
    engine = Engine(recipe)
    try:
        dedup.step(engine, recipe)
    finally:
        engine.stop()
    print(len(os.listdir(marks)))


if __name__ == "__main__":
    main()
