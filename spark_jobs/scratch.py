"""Intermediate results written to storage and read back, so that no plan grows and no result is lost."""

from __future__ import annotations

import shutil

from pyspark.sql import DataFrame, SparkSession

from dataeng import storage


class Scratch:
    """A folder beside an attempt's data that no manifest names; ``clear`` deletes it."""

    def __init__(self, session: SparkSession, folder: str) -> None:
        self.session, self.folder, self._count = session, folder, 0

    def keep(self, frame: DataFrame) -> DataFrame:
        """The frame, computed once: written as Parquet and read back."""
        self._count += 1
        path = storage.join(self.folder, f"{self._count:03d}")
        frame.write.mode("errorifexists").parquet(path)
        return self.session.read.schema(frame.schema).parquet(path)

    def clear(self) -> None:
        """Delete everything written so far."""
        if storage.is_s3(self.folder):
            storage.delete([entry.path for entry in storage.list_files(self.folder)])
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
