"""What is computed for a document or a block of a cluster: vectors and ranks, clusters, who goes for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataeng.dedup.decide import KEY, rank
from dataeng.document import ROW, Verdict, from_row, to_batch, to_dropped, to_row
from dataeng.semantic import Config, hashed, model
from dataeng.semantic.vectors import Vectors, kmeans, matches, nearest

Batches = Iterable[pa.RecordBatch]
COUNTS = pa.schema([("bucket", pa.int64()), ("documents", pa.int64())])
# A document without its text; ``vector`` is null where it has no words.
EMBEDDED = pa.schema([*KEY, ("id", pa.string()), ("rank", pa.float64()), ("vector", pa.binary())])
CENTRES = pa.schema([("cluster", pa.int32()), ("vector", pa.binary())])
# ``rank`` is the closeness to the centre where the farthest stays.
ASSIGNED = pa.schema([*EMBEDDED, ("cluster", pa.int32()), ("closeness", pa.float64())])
GONE = pa.schema([*KEY, ("matched", pa.string()), ("similarity", pa.float64())])


def as_vectors(values: Iterable[bytes]) -> Vectors:
    """Vectors of equal length from their bytes, as ND."""
    rows = list(values)
    return np.frombuffer(bytearray().join(rows), np.int8).reshape(len(rows), -1)


def count_words(batches: Batches) -> Iterator[pa.RecordBatch]:
    """COUNTS: in how many of these texts words of each bucket stand."""
    counts = np.zeros(hashed.BUCKETS, np.int64)
    for batch in batches:
        for text in batch.column("text").to_pylist():
            counts[hashed.buckets(text or "")] += 1
    held = np.flatnonzero(counts)
    for start in range(0, held.size, 1 << 16):
        part = held[start : start + (1 << 16)]
        yield pa.RecordBatch.from_arrays([pa.array(part), pa.array(counts[part])], schema=COUNTS)


def embedder(config: Config, weights: NDArray[np.float32] | None) -> Callable[[str], Vectors | None]:
    """What makes a vector of a text: the model, or hashed words by their ``weights``."""
    if config.model:
        folder = config.model
        return lambda text: model.embed(text, folder, config.prefix)
    assert weights is not None
    return lambda text: hashed.embed(text, weights, config.dimensions, config.ngram_words)


def embed(batches: Batches, config: Config, weights: NDArray[np.float32] | None) -> Iterator[pa.RecordBatch]:
    """EMBEDDED rows of document rows with their place."""
    make = embedder(config, weights)
    keep = config.keep if config.keep != "farthest" else "longest"
    for batch in batches:
        rows = []
        for row in batch.to_pylist():
            vector = make(row["text"] or "")
            found = {"rank": rank(row, keep), "vector": None if vector is None else vector.tobytes()}
            rows.append({name: row[name] for name in ("path", "row", "id")} | found)
        yield pa.RecordBatch.from_pylist(rows, schema=EMBEDDED)


def centres(batches: Batches, k: int, config: Config, seed: int) -> Iterator[pa.RecordBatch]:
    """CENTRES of a sample's vectors, which come sorted and all in one partition."""
    rows = [value for batch in batches for value in batch.column("vector").to_pylist()]
    if rows:
        found = kmeans(as_vectors(rows), k, config.iterations, seed)
        columns = [pa.array(range(len(found)), pa.int32()), pa.array([one.tobytes() for one in found], pa.binary())]
        yield pa.RecordBatch.from_arrays(columns, schema=CENTRES)


def assign(batches: Batches, found: Vectors, config: Config) -> Iterator[pa.RecordBatch]:
    """ASSIGNED rows of EMBEDDED ones that have a vector."""
    for batch in batches:
        if not batch.num_rows:
            continue
        cluster, closeness = nearest(as_vectors(batch.column("vector").to_pylist()), found)
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        columns |= {"cluster": pa.array(cluster, pa.int32()), "closeness": pa.array(closeness)}
        if config.keep == "farthest":
            columns["rank"] = columns["closeness"]
        yield pa.RecordBatch.from_arrays([columns[name] for name in ASSIGNED.names], schema=ASSIGNED)


def compare(batches: Batches, threshold: float) -> Iterator[pa.RecordBatch]:
    """GONE rows of ASSIGNED ones with their ``block``, sorted by cluster, block, rank and id."""
    block: tuple[int, int] | None = None
    held: list[dict[str, Any]] = []
    for batch in batches:
        for row in batch.to_pylist():
            if (row["cluster"], row["block"]) != block:
                yield _gone(held, threshold)
                block, held = (row["cluster"], row["block"]), []
            held.append({name: row[name] for name in ("path", "row", "id", "vector")})
    yield _gone(held, threshold)


def _gone(held: list[dict[str, Any]], threshold: float) -> pa.RecordBatch:
    rows = []
    if len(held) > 1:
        matched, similarity = matches(as_vectors(row["vector"] for row in held), threshold)
        for place in np.flatnonzero(matched >= 0):
            found = {"matched": held[matched[place]]["id"], "similarity": float(min(1.0, similarity[place]))}
            rows.append({name: held[place][name] for name in ("path", "row")} | found)
    return pa.RecordBatch.from_pylist(rows, schema=GONE)


def decide(batches: Batches, config: Config) -> Iterator[pa.RecordBatch]:
    """The rows of tables kept and dropped, hashed, of documents joined with GONE."""
    for batch in batches:
        yield to_batch([_row(row, config) for row in batch.to_pylist()], ROW)


def _row(row: dict[str, Any], config: Config) -> dict[str, Any]:
    document, matched, similarity = from_row(row), row["matched"], row["similarity"]
    if matched is None:
        return to_row(document)
    why = Verdict(False, "semantic", similarity, config.threshold, "max")
    return to_dropped(document, "semantic", why, duplicate_of=matched, matched=matched, similarity=similarity)
