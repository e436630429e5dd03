"""The whole step: the same decisions as a plain program, for any partitioning, order of input and block size."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from dedup_reference import deduplicate

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs import dedup
from spark_jobs.session import Engine

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("l", "n", "rst", "m")]
COLUMNS = ("table", "rule", "duplicate_of", "matched", "similarity")


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


def decisions(
    root: Path, table_rows: Any, by_hash: dict[tuple[str, Any, Any], str]
) -> dict[str, list[tuple[Any, ...]]]:
    """By the input's row hash, what became of the rows with it."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in ("kept", "dropped"):
        for row in table_rows(root, "dedup", table):
            origin = by_hash[(row["id"], row["text"], row["file"])]
            found.setdefault(origin, []).append(tuple((row | {"table": table})[name] for name in COLUMNS))
    return found


@pytest.mark.parametrize("keep", ["longest", "earliest", "highest:quality"])
def test_decisions_are_those_of_a_plain_program(spark, tmp_path, published, table_rows, keep) -> None:
    rows = corpus()
    published(tmp_path, "texts", rows, 3)
    manifest = run(tmp_path, keep=keep, threshold=0.7)
    expected = deduplicate(rows, recipe_config(keep=keep, threshold=0.7))
    found = decisions(tmp_path, table_rows, {(r["id"], r["text"], r["file"]): r["row_hash"] for r in rows})
    twice = rows[4]["row_hash"]
    assert sorted(rule for _, rule, *_ in found[twice]) == sorted([expected[twice][1] or "", "duplicate_id"])
    for row_hash, decision in expected.items():
        assert decision in found[row_hash]
        assert len(found[row_hash]) == (2 if row_hash == twice else 1)
    assert manifest.counts["in"] == len(rows)
    assert set(manifest.dropped_by) == {"near_duplicate", "exact", "duplicate_id"}
    assert manifest.details["bands_cut_off"] == 0


def recipe_config(**settings: Any) -> Any:
    return Recipe("test.toml", "x", 0, {"dedup": settings}).step("dedup")


def test_results_hang_on_neither_partitions_nor_order_nor_files(spark, tmp_path, published) -> None:
    rows, hashes = corpus(2), set()
    for partitions, files in ((1, 1), (2, 5), (7, 2)):
        random.Random(partitions).shuffle(rows)
        root = tmp_path / str(partitions)
        published(root, "texts", rows, files)
        manifest = run(root, partitions)
        hashes.add(tuple(manifest.tables[name].hash for name in ("kept", "dropped", "signatures")))
        assert stage.verify(str(root), "dedup") == []
    assert len(hashes) == 1


def test_large_bands_go_by_rounds_and_come_to_the_same_clusters(spark, tmp_path, published, table_rows) -> None:
    chance = random.Random(3)
    base = sentence(chance, 400)
    blob = [" ".join(edit(chance, base, 1)) for _ in range(60)]
    texts = [*blob, *(" ".join(sentence(chance, 100)) for _ in range(10))]
    rows = [to_row(Document(id=digest(str(number)), text=text)) for number, text in enumerate(texts)]
    published(tmp_path, "texts", rows, 2)
    manifest = run(tmp_path, block_documents=4)
    kept = {row["id"] for row in table_rows(tmp_path, "dedup")}
    assert len(kept & {row["id"] for row in rows[:60]}) == 1
    assert kept >= {row["id"] for row in rows[60:]}
    assert manifest.details["bands_cut_off"] == 0
    cut = run(tmp_path, block_documents=4, max_rounds=1)
    assert cut.details["bands_cut_off"] > 0


def test_nothing_to_drop_and_no_candidate_at_all(spark, tmp_path, published, table_rows) -> None:
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
