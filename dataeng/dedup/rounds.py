"""A band of more than a block, compared in rounds to its end in one task; larger ones go by joins (``candidates``).

In each round the members, in the order of another band, are cut into blocks and compared all with all there; the least
member of each component (its hub) goes on to the next. A band is done with the round in which it is one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from dataeng.dedup import Config
from dataeng.dedup.against import MARK
from dataeng.dedup.hashing import compare_groups
from dataeng.dedup.verify import flat, whole_groups

# What goes in: members of bands, those of a band together and by ascending id; `bands` are a member's band hashes.
MEMBERS = pa.schema(
    [
        ("band", pa.int32()),
        ("hash", pa.int64()),
        ("id", pa.string()),
        ("bands", pa.list_(pa.int64())),
        ("values", pa.list_(pa.int64())),
    ]
)
# What comes out: a row for each member of a block with a neighbour there, as ``verify.LINKS``; and for a band that is
# not done after the last round one without an id.
FOUND = pa.schema(
    [
        ("band", pa.int32()),
        ("hash", pa.int64()),
        ("id", pa.string()),
        ("root", pa.string()),
        ("matched", pa.string()),
        ("similarity", pa.float64()),
    ]
)


def finish(batches: Iterable[pa.RecordBatch], first_round: int, config: Config) -> Iterator[pa.RecordBatch]:
    """FOUND of the bands in batches of MEMBERS, from ``first_round`` on; holds one batch and one band in memory."""
    for table, starts in whole_groups(batches, MEMBERS, ["band", "hash"]):
        for start, stop in pairwise(starts.tolist()):
            yield _finished(table.slice(start, stop - start), first_round, config)


def _finished(table: pa.Table, first_round: int, config: Config) -> pa.RecordBatch:
    table = table.combine_chunks()
    band, value = table["band"][0].as_py(), table["hash"][0].as_py()
    ids, bands = table["id"].to_pylist(), table["bands"].to_pylist()
    values, bounds = flat(table["values"])
    sets = [values[bounds[index] : bounds[index + 1]] for index in range(len(ids))]
    rows: list[dict[str, Any]] = []
    members, size = list(range(len(ids))), config.block_documents
    for number in range(first_round, config.max_rounds):
        other = (band + 1 + number) % config.bands
        members.sort(key=lambda index: (bands[index][other], ids[index]))
        blocks = [sorted(members[at : at + size]) for at in range(0, len(members), size)]
        hubs: list[int] = []
        for block in blocks:
            hubs += _compared(block, sets, ids, config.threshold, rows)
        if len(blocks) <= 1:
            break
        members = hubs
    else:
        rows.append({})
    return pa.RecordBatch.from_pylist([{"band": band, "hash": value} | row for row in rows], schema=FOUND)


def _compared(
    block: Sequence[int], sets: Sequence[np.ndarray], ids: Sequence[str], threshold: float, rows: list[dict[str, Any]]
) -> list[int]:
    """Compare a block (ascending) all with all: rows of what was found are added, the hubs come back.

    One of earlier runs' documents alone was compared in their own run.
    """
    if all(MARK in ids[index] for index in block):
        return list(block)
    values = np.concatenate([sets[index] for index in block])
    bounds = np.concatenate(([0], np.cumsum([len(sets[index]) for index in block]))).astype(np.int64)
    roots, nearest, similarity = compare_groups(values, bounds, np.array([0, len(block)], np.int64), threshold)
    for place in np.flatnonzero(nearest >= 0).tolist():
        found = {"id": place, "root": int(roots[place]), "matched": int(nearest[place])}
        named = {key: ids[block[at]] for key, at in found.items()}
        rows.append(named | {"similarity": float(similarity[place])})
    return [block[at] for at in sorted(set(roots.tolist()))]
