"""Groups compared all with all, in whatever batches they come."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dataeng.dedup.verify import SETS, compare

Sets = dict[int, dict[str, set[int]]]


def plain_links(groups: Sets, threshold: float) -> list[tuple[int, str, str, str, float]]:
    """The same by sets and a search, one pair after another."""
    out = []
    for group, sets in groups.items():
        ids = sorted(sets)
        similar = {
            (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
            for a in ids
            for b in ids
            if a != b and sets[a] and sets[b]
        }
        similar = {pair: value for pair, value in similar.items() if value >= threshold}
        for one in ids:
            near = sorted((-value, b) for (a, b), value in similar.items() if a == one)
            reached, todo = {one}, [one]
            while todo:
                here = todo.pop()
                news = {b for (a, b) in similar if a == here} - reached
                reached |= news
                todo += news
            if near:
                out.append((group, one, min(reached), near[0][1], -near[0][0]))
    return sorted(out)


def random_groups(seed: int) -> Sets:
    generator, groups = np.random.default_rng(seed), {}
    for group in range(12):
        base = generator.choice(1000, 30, replace=False)
        members = {}
        for name in generator.choice(500, generator.integers(1, 9), replace=False):
            drop, more = generator.integers(0, 8), generator.choice(1000, generator.integers(0, 6))
            members[f"{name:04d}"] = {int(v) for v in [*base[drop:], *more]}
        groups[group * 7 - 30] = members
    return groups


def batches_of(groups: Sets, size: int) -> list[pa.RecordBatch]:
    rows = [
        {"group": group, "id": name, "values": sorted(sets[name])}
        for group, sets in groups.items()
        for name in sorted(sets)
    ]
    return [pa.RecordBatch.from_pylist(rows[k : k + size], schema=SETS) for k in range(0, len(rows), size)]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_links_are_those_of_plain_sets(size: int, threshold: float) -> None:
    for seed in range(5):
        groups = random_groups(seed)
        found = pa.Table.from_batches(compare(batches_of(groups, size), threshold)).to_pylist()
        assert sorted(tuple(row.values()) for row in found) == plain_links(groups, threshold)


def test_members_that_differ_from_the_first_still_meet() -> None:
    """a is like b, b like c, a not like c; d is like c alone: one component, though a star around a misses two."""
    values = list(range(100))
    groups = {1: {"a": set(values[:80]), "b": set(values[5:85]), "c": set(values[12:92]), "d": set(values[18:98])}}
    found = pa.Table.from_batches(compare(batches_of(groups, 10), 0.8)).to_pylist()
    assert {row["id"]: row["root"] for row in found} == dict.fromkeys("abcd", "a")


def test_empty_sets_and_no_rows_give_no_links() -> None:
    groups: Sets = {1: {"a": set(), "b": set()}}
    assert pa.Table.from_batches(compare(batches_of(groups, 10), 0.1)).num_rows == 0
    assert pa.Table.from_batches(compare([], 0.5)).num_rows == 0
    assert pa.Table.from_batches(compare([pa.RecordBatch.from_pylist([], schema=SETS)], 0.5)).num_rows == 0
