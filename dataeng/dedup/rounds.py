"""Blocks of a band compared in rounds by one task, as ``candidates`` does it by joins.

In each round the members of a band, in the order of another band, are cut into blocks and compared all with all
there; the least member of each component (its hub) goes on to the next. A band is done with the round in which it is
one block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
_AT_ONCE = 1_000_000  # shingles handed over for comparing at once: 8 MB

Block = Sequence[int]  # places of members


class Members:
    """Documents by ascending id: their band hashes (documents x bands) and sets; what was found between them."""

    def __init__(self, table: pa.Table, config: Config) -> None:
        """``table`` has ``id``, ``bands`` and ``values``, each in one chunk, by ascending id."""
        self.config = config
        self.ids: list[str] = table["id"].to_pylist()
        self.bands = flat(table["bands"])[0].view(np.int64).reshape(len(self.ids), -1)
        values, bounds = flat(table["values"])
        self.sets = [values[start:stop] for start, stop in pairwise(bounds.tolist())]
        self.earlier = np.array([MARK in name for name in self.ids], bool)
        self.links: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    def ordered(self, members: Block, band: int, number: int) -> list[int]:
        """Members of a band in the order of round ``number``: by another band's hash, then id."""
        other = self.bands[:, (band + 1 + number) % self.bands.shape[1]]
        return sorted(members, key=lambda member: (other[member], member))

    def blocks(self, ordered: Block) -> list[Block]:
        """A band's members cut into blocks, each by ascending id."""
        size = self.config.block_documents
        return [sorted(ordered[at : at + size]) for at in range(0, len(ordered), size)]

    def compare(self, blocks: Sequence[Block]) -> list[list[int]]:
        """Compare blocks all with all: links are kept, each block's hubs come back.

        One of earlier runs' documents alone was compared in their own run.
        """
        hubs: list[list[int]] = [list(block) for block in blocks]
        waiting, values = [], 0
        for number, block in enumerate(blocks):
            if len(block) > 1 and not self.earlier[block].all():
                waiting.append(number)
                values += sum(self.sets[member].size for member in block)
            if values > _AT_ONCE or (number + 1 == len(blocks) and waiting):
                self._compare([blocks[place] for place in waiting], waiting, hubs)
                waiting, values = [], 0
        return hubs

    def _compare(self, blocks: Sequence[Block], numbers: Sequence[int], hubs: list[list[int]]) -> None:
        members = np.concatenate([np.array(block, np.int64) for block in blocks])
        groups = np.concatenate(([0], np.cumsum([len(block) for block in blocks]))).astype(np.int64)
        sets = [self.sets[member] for member in members.tolist()]
        bounds = np.concatenate(([0], np.cumsum([len(values) for values in sets]))).astype(np.int64)
        roots, nearest, similarity = compare_groups(np.concatenate(sets), bounds, groups, self.config.threshold)
        for number, start, stop in zip(numbers, groups[:-1].tolist(), groups[1:].tolist(), strict=True):
            hubs[number] = members[np.unique(roots[start:stop])].tolist()
        linked = np.flatnonzero(nearest >= 0)
        own = members[linked], members[roots[linked]], members[nearest[linked]]
        self.links.append((*own, similarity[linked]))

    def finish(self, band: int, members: Block, first_round: int) -> bool:
        """The rounds of a band from ``first_round`` on; whether it was done before ``max_rounds``."""
        for number in range(first_round, self.config.max_rounds):
            blocks = self.blocks(self.ordered(members, band, number))
            hubs = self.compare(blocks)
            if len(blocks) <= 1:
                return True
            members = [hub for own in hubs for hub in own]
        return False


def finish(batches: Iterable[pa.RecordBatch], first_round: int, config: Config) -> Iterator[pa.RecordBatch]:
    """FOUND of the bands in batches of MEMBERS, from ``first_round`` on; holds one batch and one band in memory."""
    for table, starts in whole_groups(batches, MEMBERS, ["band", "hash"]):
        for start, stop in pairwise(starts.tolist()):
            yield _finished(table.slice(start, stop - start).combine_chunks(), first_round, config)


def _finished(table: pa.Table, first_round: int, config: Config) -> pa.RecordBatch:
    band = {"band": table["band"][0].as_py(), "hash": table["hash"][0].as_py()}
    members = Members(table, config)
    done = members.finish(band["band"], range(len(members.ids)), first_round)
    rows = [] if done else [band]
    for places in members.links:
        named = ([members.ids[place] for place in column.tolist()] for column in places[:3])
        for own, root, matched, similarity in zip(*named, places[3].tolist(), strict=True):
            rows.append(band | {"id": own, "root": root, "matched": matched, "similarity": similarity})
    return pa.RecordBatch.from_pylist(rows, schema=FOUND)
