"""Intermediate results written to storage and read back, so that no plan grows and no result is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.session import Engine

WHOLE_BYTES = 4 << 20  # of ids and hashes: some ten thousand documents


class Scratch:
    """A folder beside an attempt's data that no manifest names; ``clear`` deletes it."""

    def __init__(self, session: SparkSession, folder: str) -> None:
        self.session, self.folder, self._count = session, folder, 0

    def keep(self, frame: DataFrame, whole_bytes: int = 0) -> DataFrame:
        """The frame, computed once: written as Parquet and read back.

        One of fewer than ``whole_bytes`` is read as one partition: what follows on it alone needs no exchange, and
        each exchange costs a small corpus more than its data do.
        """
        self._count += 1
        path = storage.join(self.folder, f"{self._count:03d}")
        frame.write.mode("errorifexists").parquet(path)
        kept = self.session.read.schema(frame.schema).parquet(path)
        whole = whole_bytes and sum(entry.size for entry in storage.list_files(path)) < whole_bytes
        return kept.coalesce(1) if whole else kept

    def clear(self) -> None:
        """Delete everything written so far."""
        if storage.is_s3(self.folder):
            storage.delete([entry.path for entry in storage.list_files(self.folder)])
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def joined(
    engine: Engine,
    recipe: Recipe,
    name: str,
    names: str | list[str],
    make_rows: Callable[[SparkSession, Attempt, list[str], Scratch], tuple[DataFrame, dict[str, Any]]],
    more_inputs: Sequence[dict[str, Any]] = (),
    also: str | None = None,
) -> Manifest:
    """``stages.joined`` over the kept documents of stages, with a scratch folder that is deleted at the end.

    ``more_inputs`` enter the fingerprint too; table ``also`` of the stages that have one comes in as well.
    Raises UserError where those stages kept no document.
    """
    names = [names] if isinstance(names, str) else names
    opened: list[Scratch] = []

    def rows(session: SparkSession, attempt: Attempt, files: list[str]) -> tuple[DataFrame, dict[str, Any]]:
        if not files:
            raise UserError(f"{name}: {', '.join(names)} kept no document: see what they dropped, and why")
        opened.append(Scratch(session, f"{attempt.data_folder}.scratch"))
        return make_rows(session, attempt, files, opened[0])

    def paths() -> list[str]:
        tables = ["kept", also] if also else ["kept"]
        return [str(file["path"]) for table in tables for file in stages.stage_files(recipe, names, table)]

    try:
        inputs = [*stage.stage_inputs(recipe.root, names, name), *more_inputs]
        for before in names if also else []:
            if also in stage.need_manifest(recipe.root, before, name).tables:
                inputs += [{**entry, "table": also} for entry in stage.stage_inputs(recipe.root, before, name, also)]
        return stages.joined(engine, recipe, name, inputs, paths, rows)
    finally:
        for scratch in opened:
            scratch.clear()
