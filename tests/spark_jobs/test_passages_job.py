"""The whole step: what a plain program says, at any partitioning and in any order of the input."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from passages_brute import check
from pyspark.sql import functions as F

from dataeng import stage
from dataeng.document import Document, digest, to_row
from dataeng.passages import Config
from dataeng.passages.units import LINE
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from dataeng.why import why
from spark_jobs import passages
from spark_jobs.repeats import repeated
from spark_jobs.session import Engine

FOOTER = "All rights reserved. Read our terms of use and our privacy policy before you go on here."
SETTINGS: dict[str, Any] = {"lines": {"minimum_documents": 3}, "substrings": {"tokens": 20}}


def corpus(seed: int) -> list[dict[str, Any]]:
    """About 120 documents of three sites and none: passages copied, chained and repeated, frames, CJK, empty texts."""
    chance = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(f"{chance.randrange(10**5):x}" + chance.choice(["", "", ",", ".\n"]) for _ in range(count))

    passage = [words(count) for count in (15, 19, 20, 21, 40, 60)]
    kanji = "".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(30))
    texts = [f"{words(30)}{chance.choice(passage)} {words(8)}{chance.choice(passage)}" for _ in range(60)]
    chain = words(200).split()
    texts += [" ".join(chain[start : start + 60]) for start in range(0, 140, 15)]
    texts += [
        f"{words(9)} {kanji}。{words(3)}",
        f"前書き{kanji[5:]}",
        kanji + kanji,
        "tick tock " * 60,
        passage[4],
        "",
        " ",
    ]
    texts += [f"Our shop\n\n{words(12)}\n{FOOTER}" for _ in range(40)]
    rows = []
    for number, text in enumerate(texts):
        host = chance.choice(["a.example", "b.example", "c.example", ""])
        url = f"https://{host}/{number}" if host else None
        rows.append(to_row(Document(id=digest(f"{seed}-{number}"), text=text, url=url, source="books")))
    return rows


def run(root: Path, partitions: int = 2, **settings: Any) -> tuple[Manifest, Config]:
    tables = {"spark": {"master": "local[2]", "partitions": partitions}, "passages": {"input": "texts"} | settings}
    recipe = Recipe("test.toml", str(root), 0, tables)
    return passages.step(Engine(recipe), recipe), recipe.step("passages")


def test_tables_are_those_of_a_plain_program_whatever_the_partitioning(spark, tmp_path, published, table_rows) -> None:
    rows, hashes = corpus(1), set()
    for partitions, files in ((1, 1), (2, 5), (7, 2)):
        root = tmp_path / str(partitions)
        random.Random(partitions).shuffle(rows)
        published(root, "texts", rows, files)
        manifest, config = run(root, partitions, **SETTINGS)
        hashes.add(tuple(manifest.tables[name].hash for name in ("kept", "dropped", "spans")))
        assert stage.verify(str(root), "passages") == []
    assert len(hashes) == 1
    kept = {row["id"]: row for row in table_rows(root, "passages")}
    spans = table_rows(root, "passages", "spans")
    check(rows, spans, {name: row["text"] for name, row in kept.items()}, config)
    assert {span["rule"] for span in spans} == {"lines", "substrings"}
    entered = {row["id"]: row["text"] for row in rows}
    dropped = table_rows(root, "passages", "dropped")
    assert dropped
    for row in dropped:
        assert row["text"] == entered[row["id"]]
        assert row["score"] < row["threshold"]
    changed = next(row for row in kept.values() if int(row["metadata"].get("cut.lines", 0)))
    assert f"cut.lines {changed['metadata']['cut.lines']}" in why(str(root), changed["id"])


def test_nothing_repeats_and_one_rule_alone(spark, tmp_path, published, table_rows) -> None:
    rows = [to_row(Document(id=digest(str(k)), text=f"one text of {k} words", url=None)) for k in range(4)]
    published(tmp_path, "texts", rows)
    manifest, _ = run(tmp_path, rules=["lines"])
    assert manifest.counts == {"in": 4, "kept": 4, "dropped": 0}
    assert table_rows(tmp_path, "passages") == sorted(
        (({k: v for k, v in row.items() if k != "table"}) for row in rows), key=lambda row: row["id"]
    )


def test_of_rows_with_one_id_the_first_counts(spark, tmp_path, published, table_rows) -> None:
    """Though it stands in a later file: what a corpus without the others gives, and those as ``duplicate_id``."""
    rows = corpus(2)
    again = [dict(rows[5]), dict(rows[5])]  # the same row, which comes three times in all
    for number, row in enumerate(rows[20:23]):  # other texts by the same id, which stood later in their capture file
        again.append(to_row(Document(id=row["id"], text=rows[number]["text"], url=row["url"], offset=7)))
    published(tmp_path, "texts", again + rows, 4)
    manifest, config = run(tmp_path, **SETTINGS)
    assert manifest.counts["in"] == len(rows) + 5
    assert manifest.dropped_by["duplicate_id"] == 5
    dropped = [row for row in table_rows(tmp_path, "passages", "dropped") if row["rule"] == "duplicate_id"]
    assert sorted((row["id"], row["text"]) for row in dropped) == sorted((row["id"], row["text"]) for row in again)
    assert all(row["matched"] == row["duplicate_of"] == row["id"] for row in dropped)
    kept = {row["id"]: row["text"] for row in table_rows(tmp_path, "passages")}
    check(rows, table_rows(tmp_path, "passages", "spans"), kept, config)
    assert stage.verify(str(tmp_path), "passages") == []


def test_holders_of_one_line_are_spread_over_tasks(spark) -> None:
    settings = {"adaptive.enabled": "false", "autoBroadcastJoinThreshold": "-1", "shuffle.partitions": "16"}
    before = {name: spark.conf.get(f"spark.sql.{name}") for name in settings}
    numbers = {"key": 7, "more": 8, "rank": 0, "weight": 1}
    one = [F.lit(value).cast("long").alias(name) for name, value in numbers.items()]
    columns = [F.lit(LINE).cast("byte").alias("kind"), *one, F.md5(F.col("id").cast("string")).alias("id")]
    held = spark.range(20_000).select(*columns, F.col("id").alias("place"))
    try:
        for name, value in settings.items():
            spark.conf.set(f"spark.sql.{name}", value)
        found = repeated(held, {LINE: 20_000}).groupBy(F.spark_partition_id(), "first", "holders").count().collect()
    finally:
        for name, value in before.items():
            spark.conf.set(f"spark.sql.{name}", value)
    assert sum(row["count"] for row in found) == 20_000
    assert {row["holders"] for row in found} == {20_000}
    assert max(row["count"] for row in found) < 5_000
