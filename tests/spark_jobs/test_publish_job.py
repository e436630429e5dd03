"""The whole step: nothing lost between splits, budgets kept, too little text refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dataeng import garbage, stage
from dataeng.cli import Failure
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs import publish
from spark_jobs.session import Engine

SPLITS = ("train", "validation", "test")


def corpus(documents: int = 300) -> list[dict[str, Any]]:
    chance = random.Random(1)
    return [
        to_row(Document(id=digest(str(k)), text=f"{k} " + "x" * chance.randrange(50, 150), source="ab"[k % 3 == 0]))
        for k in range(documents)
    ]


def run(root: Path, partitions: int = 2, **settings: Any) -> Manifest:
    tables = {"spark": {"master": "local[2]", "partitions": partitions}, "publish": {"input": "texts", **settings}}
    recipe = Recipe("test.toml", str(root), 3, tables)
    return publish.step(Engine(recipe), recipe)


def test_every_document_is_in_one_split_for_any_partitioning(spark, tmp_path, published, table_rows) -> None:
    rows, hashes = corpus(), set()
    for partitions, files in ((1, 1), (7, 3)):
        root = tmp_path / str(partitions)
        published(root, "texts", rows, files)
        manifest = run(root, partitions, validation=0.2, test=0.1)
        assert manifest.counts == {"in": 300, "kept": 300, "dropped": 0}
        assert set(manifest.tables) == {*SPLITS, "dropped"}
        assert manifest.details["splits"] == {name: manifest.tables[name].rows for name in SPLITS}
        assert stage.verify(str(root), "publish") == []
        hashes.add(tuple(manifest.tables[name].hash for name in SPLITS))
        random.shuffle(rows)
    assert len(hashes) == 1
    ids = [row["id"] for name in SPLITS for row in table_rows(tmp_path / "1", "publish", name)]
    assert sorted(ids) == sorted(row["id"] for row in rows)


def test_weights_cut_the_richer_source(spark, tmp_path, published, table_rows) -> None:
    published(tmp_path, "texts", corpus(), 2)
    manifest = run(tmp_path, weights={"a": 1, "b": 1}, unit="bytes")
    given = manifest.details["sources"]
    assert given["b"]["documents"] == 100
    assert given["a"]["asked"] == given["b"]["asked"] == given["b"]["tokens"]
    assert given["a"]["asked"] - 40 <= given["a"]["tokens"] <= given["a"]["asked"]
    dropped = table_rows(tmp_path, "publish", "dropped")
    assert {(row["source"], row["rule"], row["bound"]) for row in dropped} == {("a", "mixture", "max")}
    assert all(row["score"] >= row["threshold"] for row in dropped)
    assert manifest.counts["dropped"] == len(dropped) == 200 - given["a"]["documents"]


def test_a_scarce_source_is_repeated_in_train_only(spark, tmp_path, published, table_rows) -> None:
    published(tmp_path, "texts", corpus(), 2)
    manifest = run(tmp_path, weights={"a": 1, "b": 1}, maximum_repetitions=3, validation=0.2)
    assert manifest.counts["dropped"] == 0
    repeats = {row["source"]: set() for row in corpus()}
    for row in table_rows(tmp_path, "publish", "train"):
        repeats[row["source"]].add(row["metadata"].get("repeat", "1"))
    assert repeats == {"b": {"3"}, "a": {"1", "2"}} or repeats == {"b": {"3"}, "a": {"1"}}
    assert not any("repeat" in row["metadata"] for row in table_rows(tmp_path, "publish", "validation"))


def test_too_little_text_is_a_failure_that_publishes_nothing(spark, tmp_path, published) -> None:
    published(tmp_path, "texts", corpus(20))
    with pytest.raises(Failure, match=r"only [\d,]+ bytes of text remain"):
        run(tmp_path, minimum_bytes=1_000_000)
    assert stage.read_manifest(str(tmp_path / "publish")) is None
    assert not list((tmp_path / "publish").glob("data/*"))


def test_an_empty_split_is_said(spark, tmp_path, published, caplog) -> None:
    caplog.set_level("INFO", logger="millrace")
    published(tmp_path, "texts", corpus(3))
    run(tmp_path, validation=0.001, test=0)
    assert [record.getMessage() for record in caplog.records if "validation" in record.getMessage()] == [
        "publish: no document fell into validation: raise publish.validation"
    ]


def test_the_card_beside_the_corpus_names_its_files_and_counts(spark, tmp_path, published) -> None:
    rows = corpus(60)
    for row in rows[:20]:
        row["language"] = "de"
    published(tmp_path, "texts", rows, 2)
    manifest = run(tmp_path, validation=0.2, licence="cc-by-sa-4.0", weights={"a": 1, "b": 1})
    path = tmp_path / "publish" / "README.md"
    _, front, body = path.read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts["license"] == "cc-by-sa-4.0"
    assert facts["size_categories"] == ["n<1K"]
    named = {part["split"]: part["path"] for part in facts["configs"][0]["data_files"]}
    for split, paths in named.items():
        frame = pd.concat(pd.read_parquet(tmp_path / "publish" / name) for name in paths)
        assert len(frame) == manifest.tables[split].rows > 0
        assert frame["text"].notna().all()
    languages = manifest.details["languages"]
    assert sum(found["documents"] for found in languages.values()) == manifest.counts["kept"]
    assert facts["language"] == ["de"]
    assert set(languages) == {"de", "unknown"}
    assert f"| publish | mixture | {manifest.counts['dropped']} |" in body
    made = path.stat().st_mtime_ns
    run(tmp_path, validation=0.2, licence="cc-by-sa-4.0", weights={"a": 1, "b": 1})
    assert path.stat().st_mtime_ns == made
    path.unlink()
    run(tmp_path, validation=0.2, licence="cc-by-sa-4.0", weights={"a": 1, "b": 1})
    assert path.exists()
    assert not [entry for entry in garbage.garbage(str(tmp_path), 0) if entry.path.endswith("README.md")]
