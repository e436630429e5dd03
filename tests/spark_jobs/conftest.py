"""Fixtures of Spark's tests: one session for all, and stages published without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng import stage
from dataeng.document import to_batch
from dataeng.recipe import Recipe, Table
from dataeng.stage import Attempt, Manifest

Rows = Sequence[dict[str, Any]]


@pytest.fixture(scope="session")
def spark():
    """A Spark session with two threads, as a recipe starts it; jobs of any recipe find it."""
    from spark_jobs.session import Engine

    tables = {"spark": {"master": "local[2]", "driver_memory": "1g"}}
    engine = Engine(Recipe("tests", "unused", 0, tables))
    yield engine.session()
    engine.stop()


@pytest.fixture
def published() -> Callable[[Path, str, Rows, int], Manifest]:
    """Publish rows (of ``to_row``) as a stage's table kept, cut into so many files."""

    def publish(root: Path, name: str, rows: Rows, files: int = 1) -> Manifest:
        attempt = Attempt(name, str(root / name), Table(), "0" * 32, [], None)
        paths = []
        for number in range(files):
            part = list(rows)[number::files]
            path = Path(attempt.data_folder, "table=kept", f"part-{number}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_batches([to_batch(part)]).drop_columns(["table"]), path)
            paths.append(str(path))
        tables = stage.tables_of([stage.measure(path) for path in paths], attempt)
        counts = {"in": len(rows), "kept": len(rows), "dropped": 0}
        return attempt.publish(attempt.manifest(tables=tables, counts=counts))

    return publish


@pytest.fixture
def table_rows() -> Callable[[Path, str, str], list[dict[str, Any]]]:
    """The rows of a published table, maps as dicts, sorted by id and row hash."""

    def read(root: Path, name: str, table: str = "kept") -> list[dict[str, Any]]:
        folder = str(root / name)
        found = stage.read_manifest(folder)
        assert found is not None
        rows: list[dict[str, Any]] = []
        for path in stage.table_paths(folder, found[0], table):
            read_table = pq.read_table(path, partitioning=None)
            maps = [field.name for field in read_table.schema if pa.types.is_map(field.type)]
            rows += [row | {name: dict(row[name] or ()) for name in maps} for row in read_table.to_pylist()]
        return sorted(rows, key=lambda row: (row["id"], row["row_hash"]))

    return read
