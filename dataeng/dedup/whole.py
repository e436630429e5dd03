"""Near-duplicates of a corpus whose sets fit one task, from bands to survivors: what joins find, without joins.

Each step between bands and survivors is cheap for some ten thousand documents, but as a Spark job of its own it costs
more than its data: so one task does them all, by the same blocks and rounds, and finds the same to the byte.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataeng.dedup import Config
from dataeng.dedup.hashing import components
from dataeng.dedup.rounds import Block, Members

# What goes in: every document with a band that may have near-duplicates, in any order.
CANDIDATES = pa.schema(
    [
        ("id", pa.string()),
        ("rank", pa.float64()),
        ("exact", pa.string()),
        ("stands", pa.string()),
        ("bands", pa.list_(pa.int64())),
        ("values", pa.list_(pa.int64())),
    ]
)
# What comes out: a row for each document with a near-duplicate, and for each band that was cut off one of nulls.
NEAR = pa.schema(
    [
        ("representative", pa.string()),
        ("survivor", pa.string()),
        ("cluster", pa.string()),
        ("matched", pa.string()),
        ("similarity", pa.float64()),
    ]
)


def near_duplicates(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """NEAR of the CANDIDATES in all batches, which are held in memory: 8 bytes a shingle, and their signatures."""
    table = pa.Table.from_batches([batch.cast(CANDIDATES) for batch in batches], CANDIDATES)
    if not table.num_rows:
        return
    table = table.sort_by("id").combine_chunks()
    members = Members(table, config)
    larger, unfinished = _all_bands(members)
    named = _Named(table)
    if larger:
        gone = {row["representative"] for row in named.clusters(members) if row["survivor"] != row["representative"]}
        _between_survivors(members, larger, [name not in gone for name in members.ids])
    yield pa.RecordBatch.from_pylist([*named.clusters(members), *[{}] * unfinished], schema=NEAR)


def _shared(members: Members, band: int) -> Iterator[list[int]]:
    """The members of each of a band's hashes that more than one has, in the order of the first round."""
    hashes, other = members.bands[:, band], members.bands[:, (band + 1) % members.bands.shape[1]]
    order = np.lexsort((other, hashes))  # stable: equal ones stay by ascending id
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
    for start, stop in pairwise([*starts.tolist(), order.size]):
        if stop - start > 1:
            yield order[start:stop].tolist()


def _all_bands(members: Members) -> tuple[list[tuple[int, list[int]]], int]:
    """Every band in all its rounds: those larger than a block that were done, and the number of those that were not.

    Blocks of equal members are compared once. Those of the first round are compared together.
    """
    numbers: dict[tuple[int, ...], int] = {}
    larger: list[tuple[int, list[int], list[int]]] = []
    for band in range(members.bands.shape[1]):
        for ordered in _shared(members, band):
            blocks = [numbers.setdefault(tuple(block), len(numbers)) for block in members.blocks(ordered)]
            if len(blocks) > 1:
                larger.append((band, ordered, blocks))
    hubs = members.compare([list(block) for block in numbers])
    done = []
    for band, ordered, blocks in larger:
        if members.finish(band, [hub for number in blocks for hub in hubs[number]], 1):
            done.append((band, ordered))
    return done, len(larger) - len(done)


def _between_survivors(members: Members, larger: Iterable[tuple[int, list[int]]], survives: list[bool]) -> None:
    """Compare those of larger bands that survive, where not all pairs were compared before."""
    blocks: dict[tuple[int, ...], Block] = {}
    for _, ordered in larger:
        for block in members.blocks([member for member in ordered if survives[member]]):
            blocks.setdefault(tuple(block), block)
    members.compare(list(blocks.values()))


class _Named:
    """What decides who survives: rank, exact hash, and who stands for a document, by its place."""

    def __init__(self, table: pa.Table) -> None:
        self.rank, self.exact, self.stands = (table[name].to_pylist() for name in ("rank", "exact", "stands"))

    def clusters(self, members: Members) -> list[dict[str, object]]:
        """NEAR rows of all that was found so far, without those of bands cut off."""
        if not members.links:
            return []
        own, roots, matched, similarity = (np.concatenate(column) for column in zip(*members.links, strict=True))
        least = components(len(members.ids), own, roots)
        gathered: dict[int, list[int]] = defaultdict(list)
        for member in np.unique(own).tolist():
            gathered[int(least[member])].append(member)
        nearest = _nearest(own, matched, similarity)
        rows: list[dict[str, object]] = []
        for cluster in gathered.values():
            _, survivor = min((self.rank[member], self.stands[member]) for member in cluster)
            chosen = {"survivor": survivor, "cluster": min(self.exact[member] for member in cluster)}
            for member in cluster:
                place, value = nearest[member]
                near = {"representative": members.ids[member], "matched": members.ids[place], "similarity": value}
                rows.append(chosen | near)
        return rows


def _nearest(
    own: NDArray[np.int64], matched: NDArray[np.int64], similarity: NDArray[np.float64]
) -> dict[int, tuple[int, float]]:
    """Each document's neighbour of highest Jaccard, ties by id, and that Jaccard."""
    order = np.lexsort((matched, 1 - similarity, own))[::-1]
    columns = (column[order].tolist() for column in (own, matched, similarity))
    return {member: (place, value) for member, place, value in zip(*columns, strict=True)}  # the last one stays
