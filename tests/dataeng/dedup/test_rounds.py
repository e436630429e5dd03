"""Rounds of a larger band in one task: what a plain loop over the same blocks finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.dedup import Config
from dataeng.dedup.rounds import MEMBERS, finish


def plain(members, config, first_round):
    """Pairs found (id, matched, similarity), and whether the band is done; ``members`` are (id, bands, set)."""
    band, near, ids = 3, {}, sorted(members)
    for number in range(first_round, config.max_rounds):
        ids.sort(key=lambda name: (members[name][0][(band + 1 + number) % config.bands], name))
        hubs = set()
        blocks = [ids[at : at + config.block_documents] for at in range(0, len(ids), config.block_documents)]
        for block in blocks:
            root = {name: name for name in block}
            for one in sorted(block):
                for other in sorted(block):
                    a, b = members[one][1], members[other][1]
                    if one < other and len(a & b) / len(a | b) >= config.threshold:
                        near[one, other] = len(a & b) / len(a | b)
                        low, high = sorted((root[one], root[other]))
                        root = {name: low if at == high else at for name, at in root.items()}
            hubs |= set(root.values())
        if len(blocks) <= 1:
            return near, True
        ids = sorted(hubs)
    return near, False


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(2, 6), st.integers(0, 2), st.integers(1, 4))
def test_rounds_in_a_task_are_those_of_a_plain_loop(seed, count, block, first_round, more):
    random = np.random.default_rng(seed)
    config = Config(block_documents=block, max_rounds=first_round + more, threshold=0.6)
    origins = [set(random.integers(1, 1 << 62, 12).tolist()) for _ in range(3)]
    members = {}
    for number in range(count):
        held = sorted(origins[random.integers(3)])[: random.integers(8, 12)] + random.integers(1, 1 << 62, 2).tolist()
        members[f"{random.integers(1 << 30):08x}-{number}"] = (random.integers(-5, 5, config.bands).tolist(), set(held))
    rows = [
        {"band": 3, "hash": value, "id": name, "bands": members[name][0], "values": sorted(members[name][1])}
        for value in (-7, 7)
        for name in sorted(members)
    ]
    cut = int(random.integers(0, len(rows) + 1))
    batches = [pa.RecordBatch.from_pylist(part, schema=MEMBERS) for part in (rows[:cut], rows[cut:])]
    found = [row for batch in finish(batches, first_round, config) for row in batch.to_pylist()]
    near, done = plain(members, config, first_round)
    for value in (-7, 7):
        mine = [row for row in found if row["hash"] == value]
        assert any(row["id"] is None for row in mine) != done
        for row in mine:
            if row["id"] is not None:
                assert near[tuple(sorted((row["id"], row["matched"])))] == pytest.approx(row["similarity"])
        linked = {row["id"] for row in mine} - {None}
        assert linked == {name for pair in near for name in pair}


def test_earlier_documents_alone_are_not_compared_again():
    rows = [{"band": 0, "hash": 1, "id": f"run#{n}", "bands": [1] * 14, "values": [1, 2, 3]} for n in range(4)]
    [batch] = finish([pa.RecordBatch.from_pylist(rows, schema=MEMBERS)], 1, Config(max_rounds=2))
    assert batch.num_rows == 0
