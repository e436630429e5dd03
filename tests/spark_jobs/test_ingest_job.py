"""Books, code and questions of one recipe become documents, and one filter takes them all."""

from __future__ import annotations

import json

import pytest

from dataeng import stage
from dataeng.recipe import Recipe
from spark_jobs import filter, ingest, pipeline
from spark_jobs.session import Engine

pytestmark = pytest.mark.e2e
POSTS = """<posts>
  <row Id="1" PostTypeId="1" AcceptedAnswerId="2" Title="A title" Body="A question" ContentLicense="CC BY-SA 4.0" />
  <row Id="2" PostTypeId="2" Body="An answer" />
  <row Id="3" PostTypeId="1" Title="Open" Body="?" />
  <row Id="4 broken />
</posts>"""


def test_several_tables_of_ready_text_through_one_filter(tmp_path, spark, table_rows):
    for name in ("texts", "code"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts/book.txt").write_text("Once upon a time.")
    (tmp_path / "code/main.go").write_text("package main // SPDX-License-Identifier: MIT")
    (tmp_path / "Posts.xml").write_text(POSTS)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "1", "text": "A row"}) + "\n{broken\n")
    names = ["ingest", "books", "code", "questions"]
    tables = {
        "spark": {"partitions": 2},
        "ingest": {"input": [f"{tmp_path}/rows.jsonl"]},
        "books": {"step": "ingest", "kind": "text", "input": [f"{tmp_path}/texts"], "source": "books", "date": "1815"},
        "code": {"step": "ingest", "kind": "code", "input": [f"{tmp_path}/code"], "source": "code"},
        "questions": {"step": "ingest", "kind": "questions", "input": [f"{tmp_path}/Posts.xml"], "source": "qa"},
        "filter": {"input": names, "rules": []},
    }
    recipe = Recipe("r.toml", str(tmp_path / "run"), 0, tables)
    engine = Engine(recipe)
    pipeline.step(engine, recipe)
    for name in [*names, "filter"]:
        assert stage.verify(recipe.root, name) == []
    counts = {name: stage.need_manifest(recipe.root, name, "test").counts for name in [*names, "filter"]}
    assert {name: (found["in"], found["kept"]) for name, found in counts.items()} == {
        "ingest": (2, 1),
        "books": (1, 1),
        "code": (1, 1),
        "questions": (3, 1),
        "filter": (4, 4),
    }
    rows = {row["source"]: row for row in table_rows(tmp_path / "run", "filter")}
    assert set(rows) == {"text", "books", "code", "qa"}
    assert rows["books"]["date"] == "1815"
    assert rows["code"]["metadata"] == {"programming_language": "Go", "licence": "MIT"}
    assert rows["qa"]["metadata"]["licence"] == "CC BY-SA 4.0"
    assert ingest.step(engine, recipe) == stage.need_manifest(recipe.root, "questions", "test")
    assert filter.step(engine, recipe).counts == counts["filter"]
