"""The whole step: nothing lost between splits, budgets kept, too little text refused."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from dataeng import garbage, stage
from dataeng.cli import Failure, UserError
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


def languages(documents: int = 240) -> list[dict[str, Any]]:
    """Five of six in English, the others in Swahili; scored, but for every seventh; all with a title."""
    rows = []
    for k in range(documents):
        scores = {} if k % 7 == 0 else {"quality": random.Random(k).randrange(10) / 10}
        more = {"language": "sw" if k % 6 == 0 else "no", "source": "web", "scores": scores}
        text = f"{k} habari ya asubuhi\n" * 5
        rows.append(to_row(Document(id=digest(str(k)), text=text, metadata={"title": f"Title {k}", "x": "y"}, **more)))
    return rows


def in_order(root: Path, split: str) -> list[tuple[float, str]]:
    """Score (10 without one, as those come last) and id of a split's rows, file after file by name."""
    paths = sorted((root / "publish").glob(f"data/*/table={split}/*.parquet"), key=lambda path: path.name)
    rows = [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]
    return [(dict(row["scores"]).get("quality", 10), row["id"]) for row in rows]


ORDERED = {
    "by": ["language"],
    "language_alpha": 0.5,
    "maximum_repetitions": 3,
    "order": {"score": "quality"},
    "columns": {"title": "metadata.title", "spam": "scores.quality"},
}


def test_groups_and_an_order_are_the_same_for_any_partitioning_and_reader(spark, tmp_path, published) -> None:
    rows, found = languages(), []
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
    for partitions, files in ((1, 1), (5, 3)):
        root = tmp_path / str(partitions)
        published(root, "texts", rows, files)
        manifest = run(root, partitions, validation=0.2, test=0.1, **ORDERED)
        assert stage.verify(str(root), "publish") == []
        orders = {name: in_order(root, name) for name in SPLITS}
        assert all(order == sorted(order) for order in orders.values())
        found.append((orders, manifest.details["groups"], {name: manifest.tables[name].hash for name in SPLITS}))
        random.shuffle(rows)
    spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")
    assert found[0] == found[1]
    assert len(manifest.tables["train"].files) > 1
    groups = found[0][1]
    assert groups["sw"]["asked"] / groups["no"]["asked"] == pytest.approx(5**-0.5, rel=0.05)
    assert groups["sw"]["documents"] == 40
    assert 1.5 * groups["sw"]["available"] < groups["sw"]["tokens"] < groups["sw"]["asked"]  # repeated in train alone
    assert groups["no"]["tokens"] <= groups["no"]["asked"] < groups["no"]["available"]
    read_by_all(tmp_path / "5" / "publish", manifest, tmp_path / "cache")


def read_by_all(folder: Path, manifest: Manifest, cache: Path) -> None:
    """What pandas, DuckDB and `datasets` read of a published folder is what the manifest says."""
    loaded = datasets.load_dataset(str(folder), cache_dir=str(cache))
    assert {name: len(split) for name, split in loaded.items()} == {name: manifest.tables[name].rows for name in SPLITS}
    paths = [str(folder / file.path) for file in manifest.tables["train"].files]
    frame = pd.concat(pd.read_parquet(path) for path in paths)
    columns = ["id", "text", "language", "title"]
    assert loaded["train"].to_pandas()[columns].to_dict("list") == frame[columns].to_dict("list")
    query = "select id, text, language, metadata['title'], scores['quality'] from read_parquet(?)"
    rows = duckdb.execute(query, [paths]).fetchall()
    assert sorted(row[:4] for row in rows) == sorted(zip(*(frame[name] for name in columns), strict=True))
    assert {row[0]: row[4] for row in rows} == {
        row["id"]: row["spam"] for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
    }


def test_budgets_that_cannot_be_met_publish_nothing(spark, tmp_path, published) -> None:
    published(tmp_path, "texts", corpus(20))
    for settings in ({"tokens": {"a": 1e6, "b": 1}}, {"weights": {"a": 1}}, {"order": {"score": "quality"}}):
        with pytest.raises(UserError, match=r"^publish\.(tokens|weights|order\.score): "):
            run(tmp_path, **settings)
    assert not [path for path in (tmp_path / "publish").rglob("*") if path.is_file()]


def valid_front_matter(facts: dict[str, Any]) -> None:
    """What hubs ask of a card's front matter, as far as it is checked without one."""
    known = {"pretty_name", "license", "language", "multilinguality", "task_categories", "size_categories"}
    assert set(facts) == known | {"dataset_info", "configs"}
    lists: Sequence[str] = ("language", "multilinguality", "task_categories", "size_categories")
    assert all(isinstance(item, str) for name in lists for item in facts[name])
    assert [config["config_name"] for config in facts["configs"]] == ["default"]
    assert [one["name"] for one in facts["dataset_info"][0]["features"]] == facts["configs"][0]["columns"]


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
        row["language"] = "no"
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
    assert facts["language"] == ["no"]  # a word that YAML takes for false
    assert set(languages) == {"no", "unknown"}
    valid_front_matter(facts)
    data = DatasetCard(path.read_text()).data.to_dict()
    assert {name: data[name] for name in facts} == facts
    assert "| publish | weights.a | 1.0 |" in body
    assert f"| publish | mixture | {manifest.counts['dropped']} |" in body
    made = path.stat().st_mtime_ns
    run(tmp_path, validation=0.2, licence="cc-by-sa-4.0", weights={"a": 1, "b": 1})
    assert path.stat().st_mtime_ns == made
    path.unlink()
    run(tmp_path, validation=0.2, licence="cc-by-sa-4.0", weights={"a": 1, "b": 1})
    assert path.exists()
    assert not [entry for entry in garbage.garbage(str(tmp_path), 0) if entry.path.endswith("README.md")]
