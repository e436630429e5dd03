"""Candidates: the blocks of a band, whether one task numbers it or many."""

from __future__ import annotations

import random

import pytest

from spark_jobs import candidates
from spark_jobs.scratch import Scratch

BANDS = 3


@pytest.fixture(scope="module")
def signed(spark):
    """900 documents: three bands that hundreds share (two of them the same ones), many small ones."""
    chance = random.Random(7)
    rows = []
    for number in range(900):
        hashes = [
            chance.randrange(-(1 << 62), 1 << 62) if chance.random() < 0.5 else chance.randrange(40)
            for _ in range(BANDS)
        ]
        if number % 3 == 0:
            hashes[0] = 77
        if number % 4 == 0:
            hashes[1], hashes[2] = -5, -6
        rows.append((f"{chance.randrange(1 << 60):015x}", hashes))
    return spark.createDataFrame(rows, "id string, bands array<long>")


def found(frame) -> list[tuple[object, ...]]:
    return sorted((row["band"], row["hash"], row["size"], tuple(row["ids"]), row["group"]) for row in frame.collect())


@pytest.mark.parametrize("partitions", [1, 5])
def test_bands_of_many_documents_are_cut_alike_by_one_task_and_by_ranges(
    spark, tmp_path, monkeypatch, signed, partitions
) -> None:
    scratch = Scratch(spark, str(tmp_path))
    members = candidates._ordered(
        signed.selectExpr("id", "explode(sequence(0, 2)) AS band", "bands"), 0, BANDS
    ).repartition(partitions, "id")
    assert candidates._heavy(scratch, signed) is None
    plain = found(candidates._blocks(scratch, members, None, 8))
    monkeypatch.setattr(candidates, "SAMPLE", 4)
    monkeypatch.setattr(candidates, "IN_SAMPLE", 30)
    heavy = candidates._heavy(scratch, signed)
    assert heavy is not None
    assert {(0, 77), (1, -5), (2, -6)} == {tuple(row) for row in heavy.collect()}
    assert found(candidates._blocks(scratch, members, heavy, 8)) == plain
    assert max(len(ids) for _, _, _, ids, _ in plain) == 8
    assert sum(size == 300 for _, _, size, *_ in plain) == 38
