"""Documents that say the same: one stays, the same one at any partitioning and in any order of files."""

from __future__ import annotations

import random

import pytest

from dataeng import stage
from dataeng.document import Document, to_row
from dataeng.recipe import Recipe
from spark_jobs import semantic
from spark_jobs.session import Engine

pytestmark = pytest.mark.e2e
WORDS = [f"{n:b}".translate({48: "a", 49: "b"}) for n in range(2000)]


def documents(families=40):
    """Families of texts: 200 words, their sentences in another order, 10 words less; and a text without words."""
    draw, rows = random.Random(0), []
    for family in range(families):
        words = draw.choices(WORDS, k=200)
        sentences = [" ".join(words[n : n + 20]) for n in range(0, 200, 20)]
        texts = [" ".join(words), " ".join(draw.sample(sentences, 10)), " ".join(words[:190])]
        for number, text in enumerate(texts[: 1 + family % 3]):
            rows.append(to_row(Document(f"{family}-{number}", text, date=f"2026-01-0{3 - number}", source="test")))
    rows.append(to_row(Document("blank", " … ", source="test")))
    return rows


def run(root, config, partitions):
    tables = {"spark": {"partitions": partitions}, "semantic": config}
    recipe = Recipe("r.toml", str(root), 7, tables)
    manifest = semantic.step(Engine(recipe), recipe)
    assert stage.verify(recipe.root, "semantic") == []
    return manifest


def test_one_of_each_family_stays_at_any_partitioning(tmp_path, spark, published, table_rows):
    rows = documents()
    found = []
    for partitions, files in ((1, 1), (2, 7), (7, 3)):
        root = tmp_path / f"run-{partitions}"
        published(root, "dedup", rows[::-1] if files == 7 else rows, files)
        found.append(run(root, {"threshold": 0.9, "clusters": 3}, partitions))
    assert len({tuple((name, table.hash) for name, table in one.tables.items()) for one in found}) == 1
    assert found[0].counts == {"in": len(rows), "kept": 41, "dropped": len(rows) - 41}
    assert found[0].dropped_by == {"semantic": len(rows) - 41}
    assert found[0].details["clusters"] == 3
    assert (found[0].details["without_words"], found[0].details["clusters_cut"]) == (1, 0)
    for row in table_rows(tmp_path / "run-2", "semantic", "dropped"):
        assert row["matched"] == row["duplicate_of"] == row["id"].split("-")[0] + "-0"  # the longest, least id
        assert (row["stage"], row["threshold"], row["bound"]) == ("semantic", 0.9, "max")
        assert 0.9 <= row["similarity"] == row["score"] <= 1


def test_the_farthest_or_earliest_stays_and_large_clusters_are_cut(tmp_path, spark, published, table_rows):
    rows = documents(9)
    published(tmp_path, "dedup", rows, 2)
    run(tmp_path, {"threshold": 0.9, "keep": "earliest"}, 2)
    kept = {row["id"] for row in table_rows(tmp_path, "semantic")}
    assert kept == {f"{n}-{n % 3}" for n in range(9)} | {"blank"}
    manifest = run(tmp_path, {"threshold": 0.9, "keep": "farthest", "block_documents": 4}, 2)
    assert manifest.details["clusters_cut"] == 1
    assert 9 < manifest.counts["kept"] < len(rows)
