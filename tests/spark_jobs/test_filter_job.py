"""The step filter as a job: the same rows for any partitioning, every row accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from spark_jobs import filter as filter_job
from spark_jobs.session import Engine

PROSE = "The manual explains how you can install the system on a new machine, and what it needs of that machine. "
PERSON = "Write to jane@roe.org or call +1 212 555 0100 at 11.0.0.1. "


def recipe_of(root: Path, partitions: int, **tables: Any) -> Recipe:
    return Recipe("test.toml", str(root), 3, {"spark": {"master": "local[2]", "partitions": partitions}, **tables})


def pages() -> list[dict[str, Any]]:
    texts = [f"{PROSE * 3}Page {n} is about part {n} of the system. {PERSON if n % 3 else ''}" for n in range(40)]
    texts += [f"Short page {n}. {PERSON}" for n in range(10)]
    texts += ["Dieses Handbuch beschreibt, wie man das System auf einem neuen Rechner einrichtet. " * 3]
    return [to_row(Document(id=digest(str(n)), text=text, url=f"http://a.org/{n}")) for n, text in enumerate(texts)]


RULES = {"rules": ["language", "gopher", "personal_data"], "language": {"keep": ["en"]},
         "gopher": {f"{kind}_max": 1 for kind in ("top_2_gram", "top_3_gram", "top_4_gram")}
         | {f"duplicate_{n}_grams_max": 1 for n in range(5, 11)}}  # fmt: skip


def test_filter_gives_the_same_tables_for_any_partitioning(spark, tmp_path, published, table_rows) -> None:
    found = []
    for partitions, files in ((1, 3), (5, 1)):
        root = tmp_path / str(partitions)
        published(root, "extract", pages(), files)
        recipe = recipe_of(root, partitions, filter=RULES | {"slice_bytes": 1})
        manifest = filter_job.step(Engine(recipe), recipe)
        assert manifest.details["slices"] == files
        assert manifest.counts == {"in": 51, "kept": 40, "dropped": 11}
        assert manifest.dropped_by == {"gopher.words.min": 10, "language": 1}
        assert stage.verify(str(root), "filter") == []
        found.append({name: table.hash for name, table in manifest.tables.items()})
        assert filter_job.step(Engine(recipe), recipe).attempt == manifest.attempt
    assert found[0] == found[1]
    rows = table_rows(tmp_path / "1", "filter") + table_rows(tmp_path / "1", "filter", "dropped")
    assert sum("<EMAIL> or call <PHONE> at <IP>" in row["text"] for row in rows) == 36
    assert not any(secret in str(rows) for secret in ("jane@", "555 0100", "11.0.0.1"))


def test_a_missing_input_is_named(tmp_path) -> None:
    recipe = recipe_of(tmp_path, 1, filter={"rules": ["gopher"]})
    with pytest.raises(UserError, match="run `extract` first"):
        filter_job.step(Engine(recipe), recipe)
