"""What stands published under a root: its stages in the order of the work, and rows of their tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from dataeng import storage
from dataeng.cli import UserError
from dataeng.stage import Manifest, folder_of, read_manifest, table_paths

DOCUMENT_TABLES = ("kept", "dropped", "train", "validation", "test")  # others hold captures, signatures …


@dataclass(frozen=True)
class Published:
    """A published stage: its name, its folder and its manifest."""

    name: str
    folder: str
    manifest: Manifest

    def document_tables(self) -> list[str]:
        """The names of its tables that hold documents (Parquet): kept and dropped, or the splits."""
        tables = [(name, table.files) for name, table in self.manifest.tables.items() if name in DOCUMENT_TABLES]
        return [name for name, files in tables if files and all(file.path.endswith(".parquet") for file in files)]

    def dataset(self, table: str, paths: Sequence[str] | None = None) -> ds.Dataset:
        """A table's files (or those of ``paths``) as one dataset; nothing is read yet."""
        paths = table_paths(self.folder, self.manifest, table) if paths is None else list(paths)
        system, _ = storage.parquet_filesystem(paths[0])
        return ds.dataset([_inner(path) for path in paths], filesystem=system, format="parquet")


def _inner(path: str) -> str:
    return path.partition("://")[2] if storage.is_s3(path) else path


def folders(root: str) -> list[str]:
    """The names of the folders directly below a root; raises UserError where there is none."""
    system, inner = storage.parquet_filesystem(root)
    try:
        found = system.get_file_info(fs.FileSelector(inner, recursive=False))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{root}: there is no such run: name the root of one") from None
    return sorted(entry.base_name for entry in found if entry.type == fs.FileType.Directory)


def published(root: str) -> list[Published]:
    """All stages published under a root and the stages elsewhere that they read, inputs first.

    Stages that nothing orders stand in the order in which they were started.
    """
    root = root.rstrip("/")
    found: dict[str, Published] = {}
    wanted = folders(root)
    while wanted:
        with ThreadPoolExecutor(16) as pool:
            manifests = list(pool.map(lambda name: read_manifest(folder_of(root, name)), wanted))
        both = zip(wanted, manifests, strict=True)
        news = {name: Published(name, folder_of(root, name), found_one[0]) for name, found_one in both if found_one}
        found |= news
        inputs = {name for stage in news.values() for name in input_names(stage)}
        wanted = sorted(name for name in inputs if "/" in name and name not in found)
    return _ordered(found)


def input_names(stage: Published) -> list[str]:
    """The names of the stages that a stage's manifest says it read."""
    return [str(entry["stage"]) for entry in stage.manifest.inputs if "stage" in entry]


def _ordered(found: dict[str, Published]) -> list[Published]:
    order: list[Published] = []
    waiting = sorted(found.values(), key=lambda stage: (stage.manifest.started, stage.name))
    while waiting:
        open_names = {stage.name for stage in waiting}
        ready = next((s for s in waiting if not open_names & (set(input_names(s)) - {s.name})), waiting[0])
        waiting.remove(ready)
        order.append(ready)
    return order


def rows_where(
    stage: Published, table: str, column: str, values: Iterable[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of a table whose ``column`` is one of ``values``, with those of ``columns`` that it has.

    Only ``column`` is read of every file (less what Parquet's statistics rule out); the other
    columns only of files that hold a match. Maps come back as dicts; rows in order of files.
    """
    wanted = pa.array(sorted(set(values)), pa.string())
    condition = ds.field(column).isin(wanted)
    whole = stage.dataset(table)
    if not len(wanted) or column not in whole.schema.names:
        return []
    hits = whole.to_table(columns=["__filename"], filter=condition)
    files = sorted(set(hits.column("__filename").to_pylist()))
    if not files:
        return []
    part = ds.dataset(files, filesystem=whole.filesystem, format="parquet")
    present = [name for name in columns if name in part.schema.names]
    return to_rows(part.to_table(columns=present, filter=condition))


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """An Arrow table as dicts, its maps as dicts."""
    maps = [f.name for f in table.schema if pa.types.is_map(f.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row |= {name: dict(row[name] or ()) for name in maps}
    return rows
