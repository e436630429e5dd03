"""Candidates made sure: the sets of a group compared all with all, by exact Jaccard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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
    for table, starts in whole_groups(batches, SETS, ["group"]):
        yield _links(table, starts, threshold)


def whole_groups(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, keys: Sequence[str]
) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """Tables of whole groups (rows of equal ``keys``, which stand together), with each group's start and the end.

    The last table is empty where nothing came in.
    """
    rest = schema.empty_table()
    for batch in batches:
        rest = pa.concat_tables([rest, pa.Table.from_batches([batch.cast(schema)])])
        starts = _starts(rest, keys)
        if starts.size > 2:
            yield rest.slice(0, starts[-2]).combine_chunks(), starts[:-1]
            rest = rest.slice(starts[-2])
        rest = rest.combine_chunks()
    yield rest, _starts(rest, keys)


def _starts(table: pa.Table, keys: Sequence[str]) -> NDArray[np.int64]:
    """Where each run of equal keys starts, and the number of rows."""
    if not table.num_rows:
        return np.zeros(1, np.int64)
    columns = [table[key].to_numpy() for key in keys]
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.concatenate(([0], np.flatnonzero(changes) + 1, [table.num_rows])).astype(np.int64)


def flat(lists: pa.ChunkedArray) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The values of a column of sets in one chunk, and where each set begins and the last one ends."""
    sets = lists.chunk(0)
    bounds = np.concatenate(([0], np.cumsum(sets.value_lengths().to_numpy(zero_copy_only=False))))
    return np.ascontiguousarray(sets.flatten().to_numpy()).view(np.uint64), bounds.astype(np.int64)


def _links(table: pa.Table, starts: NDArray[np.int64], threshold: float) -> pa.RecordBatch:
    if not table.num_rows:
        return pa.RecordBatch.from_pylist([], schema=LINKS)
    group, ids = table["group"].to_numpy(), table["id"].chunk(0)
    values, bounds = flat(table["values"])
    roots, nearest, similarity = compare_groups(_writable(values), bounds, starts, threshold)
    linked = np.flatnonzero(nearest >= 0)
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
