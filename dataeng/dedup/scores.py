"""Scores that a rule of survival goes by (`keep = "highest:SCORE"`): whether any document bears them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataeng import filter as filtering
from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.dedup import score_of
from dataeng.recipe import Recipe, rule_config

_READERS = 8  # files looked into at once
_SHOWN = 20


def check(recipe: Recipe, name: str, keep: str, inputs: str | list[str]) -> None:
    """Raise UserError where ``keep`` of step ``name`` goes by a score that no kept document of its inputs has.

    Only the names of scores are read, of row groups whose statistics allow this one, up to the first that has it:
    one row group where documents have it at all; else about two bytes a document. Nothing is looked at without a score.
    """
    score = score_of(keep)
    if score is None:
        return
    folders = [inputs] if isinstance(inputs, str) else inputs
    paths = []
    for folder in folders:
        manifest = stage.need_manifest(recipe.root, folder, name)
        paths += stage.table_paths(stage.folder_of(recipe.root, folder), manifest)
    with ThreadPoolExecutor(_READERS) as pool:
        if not paths or any(pool.map(partial(_has, score=score), paths)):
            return
        known = sorted(set().union(*pool.map(_first_names, paths[:_READERS])))
    way_out = f"some have {_short(known)}" if known else "they have none: `filter` makes scores"
    raise UserError(
        f'{recipe.path}: {name}.keep = "{keep}": no document of {", ".join(folders)} has the score {score!r}; {way_out}'
    )


def _short(names: list[str]) -> str:
    """Names for a message, those of a rule that has several as ``gopher.…``."""
    rules = Counter(name.partition(".")[0] for name in names)
    found = dict.fromkeys(f"{rule}.…" if rules[rule := name.partition(".")[0]] > 1 else name for name in names)
    return ", ".join([*found][:_SHOWN]) + (", …" if len(found) > _SHOWN else "")


def _keys(file: pq.ParquetFile, group: int) -> tuple[str, Any] | None:
    """The column of a row group that holds the names of scores, and its statistics."""
    columns = file.metadata.row_group(group)
    for index in range(columns.num_columns):
        column = columns.column(index)
        if column.path_in_schema.startswith("scores.") and column.path_in_schema.endswith(".key"):
            return column.path_in_schema, column.statistics
    return None


def _names(file: pq.ParquetFile, group: int, path: str) -> pa.Array:
    """The different names of scores in a row group."""
    column = file.read_row_group(group, columns=[path]).column("scores").combine_chunks()
    return pc.unique(column.flatten().field("key"))


def _has(path: str, score: str) -> bool:
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source, pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            if (found := _keys(file, group)) is None:
                continue
            column, facts = found
            if facts is not None and facts.has_min_max and not facts.min <= score <= facts.max:
                continue
            if score in _names(file, group, column).to_pylist():
                return True
    return False


def _first_names(path: str) -> set[str]:
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source, pq.ParquetFile(source) as file:
        found = _keys(file, 0) if file.num_row_groups else None
        return set(_names(file, 0, found[0]).to_pylist()) if found else set()


def check_recipe(recipe: Recipe) -> None:
    """Raise UserError where `keep` goes by the score of a filter rule that the recipe's filter does not run.

    This is known before the first step of a recipe runs; scores that no rule is called by are left to ``check``.
    """
    for name in ("dedup", "semantic"):
        config = recipe.step(name) if name in recipe else None
        if config is None or (score := score_of(config.keep)) is None:
            continue
        rule, run = score.partition(".")[0], _rules(recipe, config.input, {name})
        if run is not None and rule not in run and rule_config(filtering.Config.package, rule):
            raise UserError(
                f'{recipe.path}: {name}.keep = "{config.keep}": filter.rules has no {rule!r} (but '
                f'{", ".join(sorted(run)) or "none"}): add it there, or take "longest" or "earliest"'
            )


def _rules(recipe: Recipe, inputs: str | list[str], seen: set[str]) -> set[str] | None:
    """The rules of the filters that documents of these stages came through; None where the recipe cannot tell."""
    found: set[str] = set()
    for name in [inputs] if isinstance(inputs, str) else inputs:
        if name not in recipe or name in seen:
            return None
        kind, config = recipe.kind(name), recipe.step(name)
        if kind in ("extract", "ingest"):
            continue
        before = _rules(recipe, config.input, seen | {name}) if hasattr(config, "input") else None
        if before is None:
            return None
        found |= before | (set(config.rules) if kind == "filter" else set())
    return found
