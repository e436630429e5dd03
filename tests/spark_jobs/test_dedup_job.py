"""The whole step: the same decisions as a plain program, for any partitioning, order of input and block size."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dedup_reference import Plain
from test_dedup_properties import crossing_chain, crossing_settings

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs import candidates, dedup
from spark_jobs.session import Engine

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("l", "n", "rst", "m")]


def sentence(chance: random.Random, words: int) -> list[str]:
    return [chance.choice(WORDS) for _ in range(words)]


def edit(chance: random.Random, words: list[str], edits: int) -> list[str]:
    changed = list(words)
    for _ in range(edits):
        changed[chance.randrange(len(changed))] = chance.choice(WORDS) + "x"
    return changed


def corpus(seed: int = 1) -> list[dict[str, Any]]:
    """About 150 documents: originals, edited and chained copies, equal texts, short ones, ids seen twice."""
    chance = random.Random(seed)
    texts: list[str] = []
    for number in range(25):
        words = sentence(chance, 60 + 7 * number)
        texts.append(" ".join(words))
        for edits in (1, 2, 3, 6):
            words = edit(chance, words, edits) if number % 3 else edit(chance, texts[-1].split(), 1)
            texts.append(" ".join(words))
        if number % 4 == 0:
            texts += [texts[-1].replace(" ", "\n  "), texts[-1], texts[-1].upper()]
    texts += ["", " ", "\n", "short text", "short  text", "Short text", "日本語" * 20, "日本語" * 20 + "です"]
    rows = []
    for number, text in enumerate(texts):
        document = Document(id=digest(f"{seed}-{number}"), text=text, file=f"f{number % 3}", offset=number)
        document.date = f"20{chance.randrange(10, 26)}-01-{chance.randrange(1, 28):02d}"
        document.scores = {"quality": chance.random()} if number % 5 else {}
        rows.append(to_row(document))
    again = [to_row(Document(id=rows[k]["id"], text=" ".join(sentence(chance, 80)), file="g")) for k in (0, 9, 30)]
    return rows + again + [rows[4]]


def run(root: Path, partitions: int = 2, **settings: Any) -> Manifest:
    tables = {"spark": {"master": "local[2]", "partitions": partitions}, "dedup": {"input": "texts", **settings}}
    recipe = Recipe("test.toml", str(root), 0, tables)
    return dedup.step(Engine(recipe), recipe)


def hard_corpus() -> list[dict[str, Any]]:
    """``corpus`` with what is hard: bands of many, ties, scripts without spaces, ids seen twice, equal rows."""
    chance = random.Random(7)
    common = sentence(chance, 90)
    texts = [" ".join(edit(chance, common, 1)) for _ in range(24)]  # bands of more than a block
    page = sentence(chance, 60)
    texts += [" ".join([*page[:50], *sentence(chance, 14)]) for _ in range(6)]  # alike, but not enough
    for first, size in ((0x4E00, 600), (0x0E01, 46), (0x3041, 80), (0xAC00, 900)):
        letters = [chr(first + chance.randrange(size)) for _ in range(120)]
        for place in (0, 30, 60):
            letters[place] = chr(first + chance.randrange(size))
            texts.append("".join(letters) if first < 0xAC00 else " ".join(letters))
        texts.append(unicodedata.normalize("NFD", texts[-1]) + "。")
    one, other = [*page[:-1], "left"], [*page[:-1], "right"]  # as near to the page, and as long, as each other
    texts += [" ".join(words) for words in (page, one, other)] + ["Page 1 of 9", "Page 2 of 9"]
    rows = corpus(2)
    for number, text in enumerate(texts):
        document = Document(id=digest(f"hard-{number}"), text=text, file="h", offset=number // 2)
        document.scores = {"quality": 0.5}
        rows.append(to_row(document))
    return [*rows, rows[-1], rows[-5]]


def recipe_config(**settings: Any) -> Any:
    return Recipe("test.toml", "x", 0, {"dedup": settings}).step("dedup")


JOINS, ONE_TASK = 0, 1 << 30  # shingles up to which one task finds all near-duplicates


def test_tables_are_those_of_a_plain_program(spark, tmp_path, published, table_rows, monkeypatch) -> None:
    """Hash for hash: by any number of partitions, whatever the order and the files, bands larger than blocks."""
    rows, settings = hard_corpus(), {"keep": "highest:quality", "threshold": 0.7, "block_documents": 8}
    plain = Plain(rows, recipe_config(**settings))
    assert {decision[1] for _, decision in plain.decisions()} == {None, "near_duplicate", "exact", "duplicate_id"}
    assert plain.cut_off == 0
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")  # or all would run as one
    try:
        for partitions, files, way in (
            *((1, 1, JOINS), (2, 5, JOINS), (7, 2, JOINS), (64, 9, JOINS)),
            *((1, 2, ONE_TASK), (7, 5, ONE_TASK), (64, 9, ONE_TASK)),
        ):
            monkeypatch.setattr(dedup, "IN_ONE_TASK", way)
            random.Random(partitions).shuffle(rows)
            root = tmp_path / f"{partitions}-{way}"
            published(root, "texts", rows, files)
            manifest = run(root, partitions, **settings)
            found = {name: table.hash for name, table in manifest.tables.items()}
            assert found == plain.hashes(), f"{partitions} partitions"
            assert manifest.details["bands_cut_off"] == 0
            assert manifest.counts["in"] == len(rows)
            assert stage.verify(str(root), "dedup") == []
    finally:
        spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")
    published(tmp_path / "again", "texts", table_rows(root, "dedup"))
    again = run(tmp_path / "again", **settings)
    assert again.counts["dropped"] == 0, "its own output loses nothing where no band was cut off"


@pytest.mark.parametrize(
    ("rounds", "way", "in_task"),
    [(1, JOINS, 0), (2, JOINS, 1 << 30), (3, JOINS, 1_000), (1, ONE_TASK, 0), (3, ONE_TASK, 0)],
)
def test_other_settings_are_those_of_a_plain_program_too(
    spark, tmp_path, published, monkeypatch, rounds, way, in_task
) -> None:
    """What is cut off as well, with short hashes, another rule and another seed; later rounds in a task or by joins."""
    monkeypatch.setattr(dedup, "IN_ONE_TASK", way)
    monkeypatch.setattr(candidates, "IN_TASK", in_task)
    rows = hard_corpus()
    settings = {"keep": "earliest", "block_documents": 3, "max_rounds": rounds, "hash_bits": 32, "hash_seed": 9}
    published(tmp_path, "texts", rows, 3)
    plain = Plain(rows, recipe_config(**settings))
    manifest = run(tmp_path, **settings)
    assert {name: table.hash for name, table in manifest.tables.items()} == plain.hashes()
    assert manifest.details["bands_cut_off"] == plain.cut_off > 0


@pytest.mark.parametrize("way", [JOINS, ONE_TASK])
def test_survivors_of_a_larger_band_meet_and_their_output_loses_nothing(
    spark, tmp_path, published, monkeypatch, way
) -> None:
    monkeypatch.setattr(dedup, "IN_ONE_TASK", way)
    rows, settings = crossing_chain(), crossing_settings()
    published(tmp_path, "texts", rows, 2)
    manifest = run(tmp_path, **settings)
    plain = Plain(rows, recipe_config(**settings))
    assert {name: table.hash for name, table in manifest.tables.items()} == plain.hashes()
    assert manifest.counts == {"in": 4, "kept": 1, "dropped": 3}


@pytest.mark.parametrize("way", [JOINS, ONE_TASK])
def test_nothing_to_drop_and_no_candidate_at_all(spark, tmp_path, published, table_rows, monkeypatch, way) -> None:
    monkeypatch.setattr(dedup, "IN_ONE_TASK", way - 1)  # there are no shingles: by joins all the same
    chance = random.Random(4)
    rows = [to_row(Document(id=digest(str(k)), text=" ".join(sentence(chance, 50)))) for k in range(5)]
    published(tmp_path, "texts", rows)
    manifest = run(tmp_path)
    assert manifest.counts == {"in": 5, "kept": 5, "dropped": 0}
    signatures = table_rows(tmp_path, "dedup", "signatures")
    assert [row["survivor"] for row in signatures] == [row["id"] for row in signatures]
    assert all(len(row["bands"]) == 14 and row["shingles"] == 46 for row in signatures)
    assert not list((tmp_path / "dedup" / "data").glob("*.scratch"))


def test_a_second_run_finds_its_work_done(spark, tmp_path, published) -> None:
    published(tmp_path, "texts", corpus()[:6])
    assert run(tmp_path).attempt == run(tmp_path, partitions=5).attempt
    assert run(tmp_path).attempt != run(tmp_path, threshold=0.5).attempt


def test_no_document_at_all_is_named(spark, tmp_path, published) -> None:
    published(tmp_path, "texts", [], 0)
    with pytest.raises(UserError, match="texts kept no document"):
        run(tmp_path)
    with pytest.raises(UserError, match="has not been published"):
        run(tmp_path / "elsewhere")
