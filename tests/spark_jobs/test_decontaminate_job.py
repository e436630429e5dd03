"""The step decontaminate as a job: the same rows for any partitioning, every row accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataeng import stage
from dataeng.acquire import tasks
from dataeng.cli import UserError
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from spark_jobs import decontaminate
from spark_jobs.session import Engine

PROSE = "The manual explains how you can install the system on a new machine, and what it needs of that machine. "
ITEM = "Janet's ducks lay 16 eggs per day and she eats three of them for breakfast every single morning."


def recipe_of(root: Path, partitions: int, **tables: Any) -> Recipe:
    return Recipe("test.toml", str(root), 3, {"spark": {"master": "local[2]", "partitions": partitions}, **tables})


def test_decontaminate_drops_what_holds_items(spark, tmp_path, published, table_rows) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "too short"}) + "\n" + json.dumps({"q": ITEM}) + "\n")
    texts = [f"{PROSE}{n}. {ITEM if n % 10 == 3 else ''} The end." for n in range(40)]
    texts[5] += "\n" + ITEM.replace("eats", "devours")
    rows = [to_row(Document(id=digest(str(n)), text=text)) for n, text in enumerate(texts)]
    found = []
    for partitions in (1, 5):
        root = tmp_path / str(partitions)
        published(root, "filter", rows, 2)
        sets = [{"name": "eggs", "path": str(tmp_path / "a.jsonl"), "fields": ["q"]}]
        recipe = recipe_of(root, partitions, decontaminate={"sets": sets}, tasks={"test": 60})
        tasks.step(recipe)
        manifest = decontaminate.step(Engine(recipe), recipe)
        assert manifest.counts == {"in": 40, "kept": 35, "dropped": 5}
        assert manifest.dropped_by == {"contaminated": 4, "contaminated.edited": 1}
        assert [entry["stage"] for entry in manifest.inputs] == ["filter", "tasks"]
        assert manifest.details["sets"]["eggs"] == {
            "items": 2, "too_short": 1, "with_answer": 0, "of_template": 0, "found": 1,
            "documents": 5, "dropped": 5, "cut": 0, "verbatim": 4, "answer": 0, "edited": 1,
        }  # fmt: skip
        assert manifest.details["items"] >= 50
        assert stage.verify(str(root), "decontaminate") == []
        found.append({name: table.hash for name, table in manifest.tables.items()})
    assert found[0] == found[1]
    dropped = table_rows(tmp_path / "1", "decontaminate", "dropped")
    edited = next(row for row in dropped if row["rule"] == "contaminated.edited")
    assert (edited["matched"], edited["threshold"]) == ("eggs/1", 0.75)
    assert edited["score"] == edited["similarity"] > 0.75
    for row in dropped:
        if row is edited:
            continue
        assert (row["rule"], row["matched"], row["similarity"], row["score"]) == ("contaminated", "eggs/1", 1.0, 1.0)
        assert (row["stage"], row["threshold"], row["bound"]) == ("decontaminate", 0.0, "max")


def test_phrases_of_many_documents_are_no_evidence(spark, tmp_path, published) -> None:
    item = " ".join([PROSE, *(f"word{n}" for n in range(60))])
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": item}) + "\n")
    rows = [to_row(Document(id=digest(str(n)), text=f"{PROSE} {n}")) for n in range(12)]
    rows.append(to_row(Document(id=digest("whole"), text=item)))
    published(tmp_path, "filter", rows, 2)
    sets = [{"name": "a", "path": str(tmp_path / "a.jsonl"), "fields": ["q"]}]
    for most, dropped in ((10, 1), (13, 13), (0, 13)):
        recipe = recipe_of(tmp_path, 3, decontaminate={"sets": sets, "common_documents": most})
        manifest = decontaminate.step(Engine(recipe), recipe)
        assert manifest.counts["dropped"] == dropped
        assert (manifest.details["common_ngrams"] > 0) == (most == 10)


def test_a_wrong_field_is_found_before_an_engine_starts(tmp_path, published) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": "x", "answer": "y"}) + "\n")
    published(tmp_path, "filter", [to_row(Document(id=digest("1"), text=PROSE))], 1)
    sets = [{"name": "a", "path": str(tmp_path / "a.jsonl"), "fields": ["question"]}]
    engine = Engine(recipe := recipe_of(tmp_path, 1, decontaminate={"sets": sets}))
    with pytest.raises(UserError, match="no field 'question'; its fields: q, answer"):
        decontaminate.step(engine, recipe)
    assert engine._session is None


def test_by_recipe_only_the_lines_are_cut(spark, tmp_path, published, table_rows) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": ITEM, "a": "Thirteen of them."}) + "\n")
    texts = [PROSE * 4, f"{PROSE * 4}\n{ITEM}\nThirteen of them.\n{PROSE}", f"Short.\n{ITEM}"]
    rows = [to_row(Document(id=digest(str(n)), text=text)) for n, text in enumerate(texts)]
    published(tmp_path, "filter", rows, 1)
    sets = [{"name": "eggs", "path": str(tmp_path / "a.jsonl"), "fields": ["q"], "answers": ["a"]}]
    recipe = recipe_of(tmp_path, 2, decontaminate={"sets": sets, "action": "cut"})
    manifest = decontaminate.step(Engine(recipe), recipe)
    assert manifest.counts == {"in": 3, "kept": 2, "dropped": 1}
    facts = manifest.details["sets"]["eggs"]
    assert {key: facts[key] for key in ("found", "documents", "dropped", "cut", "verbatim")} == {
        "found": 1, "documents": 2, "dropped": 1, "cut": 1, "verbatim": 2,
    }  # fmt: skip
    kept = {row["id"]: row for row in table_rows(tmp_path, "decontaminate")}
    assert kept[digest("0")]["row_hash"] == rows[0]["row_hash"]
    assert kept[digest("1")]["text"] == f"{PROSE * 4}\n{PROSE}"
    assert kept[digest("1")]["metadata"]["contaminated"] == "eggs/0"
    assert stage.verify(str(tmp_path), "decontaminate") == []
