"""A new corpus against earlier runs: what they have goes, by the same decisions as over both at once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from dedup_reference import deduplicate
from test_dedup_job import JOINS, ONE_TASK, corpus, edit, recipe_config, run, sentence

from dataeng import stage
from dataeng.cli import UserError
from dataeng.document import Document, digest, to_row
from spark_jobs import dedup

SETTINGS = {"keep": "highest:quality", "threshold": 0.7}


def new_corpus(old: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Equal texts, edited copies and chains of copies of old documents, and documents of its own."""
    chance = random.Random(5)
    texts = []
    for row in old[::3]:
        words = (row["text"] or "").split()
        if len(words) > 40:
            once = edit(chance, words, 2)
            texts += [row["text"].replace(" ", "  "), " ".join(once), " ".join(edit(chance, once, 3))]
    own = sentence(chance, 120)
    texts += [" ".join(own), " ".join(edit(chance, own, 1)), " ".join(sentence(chance, 90)), "short text", ""]
    rows = []
    for number, text in enumerate(texts):
        document = Document(id=digest(f"new-{number}"), text=text, file="new", offset=number)
        document.scores = {"quality": chance.random()}
        rows.append(to_row(document))
    rows[1]["id"] = old[0]["id"]  # the same page crawled again
    return rows


def expected(old_root: Path, old: list[dict[str, Any]], new: list[dict[str, Any]], table_rows: Any) -> dict[str, Any]:
    """The plain program over both corpora, the old documents outranking all; survivors are the old run's."""
    firsts = {row["id"]: row["survivor"] for row in table_rows(old_root, "dedup", "signatures")}
    seen: set[str] = set()
    named = []
    for row in sorted(old, key=lambda row: (row["file"] or "", row["offset"] or -1, row["row_hash"])):
        if row["id"] not in seen:
            seen.add(row["id"])
            more = {
                "id": f"{old_root}#{row['id']}",
                "scores": {"quality": float("inf")},
                "row_hash": f"old {row['id']}",
            }
            named.append(row | more)
    both = deduplicate([*named, *new], recipe_config(**SETTINGS))
    survivors = {f"{old_root}#{name}": f"{old_root}#{survivor}" for name, survivor in firsts.items()}
    own = {row["row_hash"] for row in new}
    return {
        row_hash: (table, rule, survivors.get(last, last), matched, similarity)
        for row_hash, (table, rule, last, matched, similarity) in both.items()
        if row_hash in own
    }


@pytest.mark.e2e
def test_what_an_earlier_run_has_is_removed_with_its_name(spark, tmp_path, published, table_rows) -> None:
    old, root = corpus(), tmp_path / "old"
    published(root, "texts", old, 2)
    run(root, **SETTINGS)
    new = new_corpus(old)
    published(tmp_path / "new", "texts", new, 2)
    manifest = run(tmp_path / "new", **SETTINGS, against=[str(root)])
    wanted = expected(root, old, new, table_rows)
    columns = ("rule", "duplicate_of", "matched", "similarity")
    origin = {(row["id"], row["text"]): row["row_hash"] for row in new}
    found = {
        origin[(row["id"], row["text"])]: (table, *(row[name] for name in columns))
        for table in ("kept", "dropped")
        for row in table_rows(tmp_path / "new", "dedup", table)
    }
    assert found == wanted
    assert manifest.counts["in"] == len(new)
    removed = [row for row in found.values() if (row[2] or "").startswith(f"{root}#")]
    assert {row[1] for row in removed} == {"exact", "near_duplicate"}
    assert any(not row[3].startswith(f"{root}#") for row in removed), "a copy of a copy is matched by the nearer one"
    assert any(row[0] == "kept" for row in found.values())
    assert stage.verify(str(tmp_path / "new"), "dedup") == []
    # A third run against the second one names the first run's survivors, and has nothing new.
    published(tmp_path / "third", "texts", new, 1)
    third = run(tmp_path / "third", **SETTINGS, against=[str(tmp_path / "new")])
    assert third.counts["kept"] == 0
    last = {row["duplicate_of"] for row in table_rows(tmp_path / "third", "dedup", "dropped")}
    assert {name.partition("#")[0] for name in last} == {str(root), str(tmp_path / "new")}


@pytest.mark.e2e
def test_partitions_do_not_matter_and_an_unchanged_earlier_run_is_no_news(
    spark, tmp_path, published, monkeypatch
) -> None:
    old = corpus(3)
    published(tmp_path / "old", "texts", old, 2)
    run(tmp_path / "old", **SETTINGS)
    hashes = set()
    for partitions, way in ((1, ONE_TASK), (5, JOINS), (5, ONE_TASK)):
        monkeypatch.setattr(dedup, "IN_ONE_TASK", way)
        root = tmp_path / f"{partitions}-{way}"
        published(root, "texts", new_corpus(old), partitions)
        manifest = run(root, partitions, **SETTINGS, against=[str(tmp_path / "old")])
        hashes.add(tuple(manifest.tables[name].hash for name in ("kept", "dropped", "signatures")))
    assert len(hashes) == 1
    assert run(root, **SETTINGS, against=[str(tmp_path / "old")]).attempt == manifest.attempt
    assert run(root, **SETTINGS).attempt != manifest.attempt


def test_other_parameters_or_no_run_are_users_mistakes(spark, tmp_path, published) -> None:
    published(tmp_path / "old", "texts", corpus()[:5])
    run(tmp_path / "old")
    published(tmp_path / "new", "texts", corpus(2)[:5])
    with pytest.raises(UserError, match=r"have bands = 14, this recipe 7: set dedup\.bands alike"):
        run(tmp_path / "new", bands=7, against=[str(tmp_path / "old")])
    with pytest.raises(UserError, match="has not been published"):
        run(tmp_path / "new", against=[str(tmp_path / "nowhere")])
    manifest = tmp_path / "old" / "dedup" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"signatures"', '"other"'))
    with pytest.raises(UserError, match="no table of signatures"):
        run(tmp_path / "new", against=[str(tmp_path / "old")])
    assert not (tmp_path / "new" / "dedup").exists()
