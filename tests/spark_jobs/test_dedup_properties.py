"""What holds of any corpus, by the plain program that the job equals hash for hash."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from dedup_reference import Plain
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.dedup import Config
from dataeng.dedup.minhash import shingles
from dataeng.dedup.whole import CANDIDATES, near_duplicates
from dataeng.document import Document, digest, from_row, to_row

CONFIGS = st.builds(
    Config,
    threshold=st.sampled_from([0.4, 0.6, 0.8, 1.0]),
    shingle_words=st.just(2),
    bands=st.integers(1, 5),
    rows=st.integers(1, 2),
    minimum_shingles=st.integers(1, 6),
    keep=st.sampled_from(["longest", "earliest", "highest:quality"]),
    block_documents=st.integers(2, 5),
    max_rounds=st.integers(1, 5),
    hash_bits=st.sampled_from([32, 64]),
)


@st.composite
def corpora(draw: Any) -> list[dict[str, Any]]:
    """Up to 40 documents, edits of few texts in few words: large bands, chains, equal texts and equal ids."""
    chance = random.Random(draw(st.integers(0, 10**6)))
    texts = [[chance.choice("abcdefghijklmnop") for _ in range(chance.randrange(16))] for _ in range(3)]
    for _ in range(draw(st.integers(0, 40))):
        words = list(chance.choice(texts))
        for _ in range(chance.randrange(3)):
            if words:
                words[chance.randrange(len(words))] = chance.choice("abcdefghijklmnopqrstuvwxyz")
        texts.append(words)
    rows = []
    for number, words in enumerate(texts):
        document = Document(id=digest(str(number % 37)), text=" ".join(words), file=f"f{number % 2}", offset=number % 5)
        document.scores = {"quality": chance.randrange(3) / 2}
        document.date = f"202{chance.randrange(3)}-01-01"
        rows.append(to_row(document))
    return rows


@settings(max_examples=60, deadline=None)
@given(corpora(), CONFIGS, st.randoms(use_true_random=False))
def test_tables_do_not_hang_on_the_order(rows: list[dict[str, Any]], config: Config, chance: random.Random) -> None:
    wanted = Plain(rows, config).hashes()
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert Plain(shuffled, config).hashes() == wanted


@settings(max_examples=60, deadline=None)
@given(corpora(), CONFIGS)
def test_nothing_disappears_and_each_removal_has_its_evidence(rows: list[dict[str, Any]], config: Config) -> None:
    plain = Plain(rows, config)
    tables = plain.tables()
    kept = {row["id"] for row in tables["kept"]}
    assert sorted(row["id"] for name in ("kept", "dropped") for row in tables[name]) == sorted(r["id"] for r in rows)
    assert len(kept) == len(tables["kept"])
    for row in tables["dropped"]:
        assert row["duplicate_of"] in kept
        if row["rule"] == "near_duplicate":
            assert row["similarity"] == pytest.approx(plain.jaccard(row["id"], row["matched"]), abs=1e-6)
            assert row["similarity"] >= config.threshold - 1e-6
            assert row["matched"] != row["id"]


@settings(max_examples=150, deadline=None)
@given(corpora(), CONFIGS)
def test_its_own_output_loses_nothing_where_no_band_was_cut_off(rows: list[dict[str, Any]], config: Config) -> None:
    """Survivors of one band were all compared: in bands of more than a block, once more after all rounds."""
    plain = Plain(rows, config)
    tables = plain.tables()
    again = Plain([to_row(from_row(row)) for row in tables["kept"]], config)
    if not plain.cut_off:
        assert not again.tables()["dropped"]


@settings(max_examples=40, deadline=None)
@given(corpora(), CONFIGS)
def test_a_file_copied_gives_equal_ids_alone(rows: list[dict[str, Any]], config: Config) -> None:
    once, twice = Plain(rows, config).tables(), Plain(rows + rows, config).tables()
    assert sorted(r["row_hash"] for r in twice["kept"]) == sorted(r["row_hash"] for r in once["kept"])
    assert sorted(r["row_hash"] for r in twice["signatures"]) == sorted(r["row_hash"] for r in once["signatures"])
    others = [row["rule"] for row in twice["dropped"] if row["rule"] != "duplicate_id"]
    assert sorted(others) == sorted(row["rule"] for row in once["dropped"] if row["rule"] != "duplicate_id")
    assert len(twice["dropped"]) == len(once["dropped"]) + len(rows)


def crossing_chain() -> list[dict[str, Any]]:
    """A chain a - b - d - c that blocks (a, b) and (c, d) cut: the hubs a and c differ, those who survive do not."""
    words = [f"{one}{other}" for one in "bdfgklmn" for other in "aeiouwxy"]
    rows = []
    for number, (name, quality) in enumerate({"a": 0.0, "b": 1.0, "d": 1.0, "c": 0.0}.items()):
        document = Document(id=name, text=" ".join(words[4 * number : 4 * number + 40]))
        document.scores = {"quality": quality}
        rows.append(to_row(document))
    return rows


def crossing_settings() -> dict[str, Any]:
    """Settings by which all of ``crossing_chain`` stand in one band."""
    plain = {"threshold": 0.75, "keep": "highest:quality", "block_documents": 2, "bands": 1, "rows": 1}
    for seed in range(20):
        found = plain | {"shingle_words": 1, "hash_seed": seed}
        if len({tuple(bands) for bands in Plain(crossing_chain(), Config(**found)).bands.values()}) == 1:
            return found
    raise AssertionError("no seed puts all of them in one band")


def test_survivors_of_a_larger_band_meet() -> None:
    plain = Plain(crossing_chain(), Config(**crossing_settings()))
    assert plain.cut_off == 0
    assert [row["id"] for row in plain.tables()["kept"]] == ["b"]


@settings(max_examples=150, deadline=None)
@given(corpora(), CONFIGS, st.integers(1, 9))
def test_one_task_decides_as_the_plain_program(rows: list[dict[str, Any]], config: Config, batch: int) -> None:
    plain = Plain(rows, config)
    candidates = [
        {
            "id": name,
            "rank": plain.rank[name][0],
            "exact": plain.exact[name],
            "stands": name,
            "bands": plain.bands[name],
        }
        | {"values": shingles(plain.firsts[name]["text"], config.shingle_words).view("int64").tolist()}
        for name in sorted(plain.bands.keys() & plain.near.keys(), key=lambda name: name[::-1])
    ]
    batches = [candidates[at : at + batch] for at in range(0, len(candidates), batch)]
    made = near_duplicates((pa.RecordBatch.from_pylist(part, schema=CANDIDATES) for part in batches), config)
    found = [row for some in made for row in some.to_pylist()]
    assert sum(row["representative"] is None for row in found) == plain.cut_off
    wanted = []
    for name, neighbours in plain.near.items():
        if neighbours:
            value, matched = min((-jaccard, other) for other, jaccard in neighbours.items())
            wanted.append((name, plain.survivor[name], plain.cluster[name], matched, -value))
    assert sorted(tuple(row.values()) for row in found if row["representative"]) == sorted(wanted)
