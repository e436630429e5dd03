"""Candidates made sure: the sets of a group compared all with all, by exact Jaccard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from dataeng.dedup.hashing import compare_groups

# What goes in: groups of sets, the rows of a group together and by ascending id.
SETS = pa.schema([("group", pa.int64()), ("id", pa.string()), ("values", pa.list_(pa.int64()))])
# What comes out: a row for each set with a neighbour. `root` is the least id of its component in the group.
LINKS = pa.schema(
    [
        ("group", pa.int64()),
        ("id", pa.string()),
        ("root", pa.string()),
        ("matched", pa.string()),
        ("similarity", pa.float64()),
    ]
)


def compare(batches: Iterable[pa.RecordBatch], threshold: float) -> Iterator[pa.RecordBatch]:
    """LINKS of the groups in batches of SETS; holds one batch and one group in memory."""
    rest = SETS.empty_table()
    for batch in batches:
        rest = pa.concat_tables([rest, pa.Table.from_batches([batch.cast(SETS)])])
        if not rest.num_rows:
            continue
        last = _start_of_last(rest["group"].to_numpy())
        yield _links(rest.slice(0, last), threshold)
        rest = rest.slice(last).combine_chunks()
    yield _links(rest, threshold)


def _start_of_last(group: np.ndarray) -> int:
    """Where the last run of equal values starts."""
    changes = np.flatnonzero(group[1:] != group[:-1])
    return int(changes[-1]) + 1 if changes.size else 0


def _links(table: pa.Table, threshold: float) -> pa.RecordBatch:
    if not table.num_rows:
        return pa.RecordBatch.from_pylist([], schema=LINKS)
    table = table.combine_chunks()
    sets = table["values"].chunk(0)
    group = table["group"].to_numpy()
    bounds = np.concatenate(([0], np.cumsum(sets.value_lengths().to_numpy(zero_copy_only=False)))).astype(np.int64)
    values = np.ascontiguousarray(sets.flatten().to_numpy()).view(np.uint64)
    starts = np.concatenate(([0], np.flatnonzero(group[1:] != group[:-1]) + 1, [group.size])).astype(np.int64)
    roots, nearest, similarity = compare_groups(_writable(values), bounds, starts, threshold)
    linked = np.flatnonzero(nearest >= 0)
    ids = table["id"].chunk(0)
    columns = [
        pa.array(group[linked], pa.int64()),
        ids.take(pa.array(linked)),
        ids.take(pa.array(roots[linked])),
        ids.take(pa.array(nearest[linked])),
        pa.array(similarity[linked]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LINKS)


def _writable(values: np.ndarray) -> np.ndarray:
    """The compiled loops take writable arrays only; Arrow's buffers are read-only."""
    return values if values.flags.writeable else values.copy()
