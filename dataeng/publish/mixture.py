"""How much of each source, which documents, and which split: pure functions of a document and its source.

A document's place is drawn from its cluster's text and the seed: 2^16 buckets. A source's budget becomes
a whole number of copies for all its documents and one more for those below a cut bucket, found from sums by
bucket. So a budget is met to within one bucket (1/65,536 of the source, or a document), never exceeded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataeng.cli import UserError
from dataeng.dedup.normalise import exact_hash
from dataeng.document import ROW, Document, Verdict, from_row, to_batch, to_dropped, to_row
from dataeng.publish import Config

BUCKETS = 1 << 16
UNKNOWN = "unknown"  # the language of documents that no rule gave one
# What is measured of a document, to be summed by the first three.
MEASURED = pa.schema(
    [
        ("source", pa.string()),
        ("bucket", pa.int64()),
        ("split", pa.string()),
        ("language", pa.string()),
        ("documents", pa.int64()),
        ("units", pa.int64()),
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Quota:
    """A source's share: every document ``copies`` times, and once more below bucket ``cut``."""

    copies: int = 1
    cut: int = 0

    def of(self, bucket: int) -> int:
        """How often a document of this bucket is used; 0 leaves it out."""
        return self.copies + (bucket < self.cut)


def _draw(seed: int, purpose: str, cluster: str) -> float:
    """A number in [0, 1) that follows from seed, purpose and cluster."""
    data = f"{seed}\0{purpose}\0{cluster}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()[:6], "big") / (1 << 48)


def cluster_of(document: Document) -> str:
    """What dedup recorded as the document's cluster, else the exact hash of its text."""
    return document.metadata.get("cluster") or exact_hash(document.text or "").hex()[:32]


def bucket_of(cluster: str, seed: int) -> int:
    """The bucket that decides whether a document fits its source's budget."""
    return int(_draw(seed, "mixture", cluster) * BUCKETS)


def split_of(cluster: str, seed: int, config: Config) -> str:
    """The split of a cluster: train, validation or test."""
    drawn = _draw(seed, "split", cluster)
    if drawn < config.validation:
        return "validation"
    return "test" if drawn < config.validation + config.test else "train"


def measure(batches: Iterable[pa.RecordBatch], config: Config, seed: int) -> Iterator[pa.RecordBatch]:
    """MEASURED rows of document rows."""
    for batch in batches:
        rows = []
        for row in batch.to_pylist():
            document = from_row(row)
            text, cluster = document.text or "", cluster_of(document)
            size = len(text.encode("utf-8", "surrogatepass"))
            units = size if config.unit == "bytes" else len(text.split())
            place = {"bucket": bucket_of(cluster, seed), "split": split_of(cluster, seed, config)}
            place["language"] = document.language or UNKNOWN
            rows.append({"source": document.source, **place, "documents": 1, "units": units, "bytes": size})
        yield pa.RecordBatch.from_pylist(rows, schema=MEASURED)


def wanted_units(available: Mapping[str, int], config: Config) -> dict[str, float]:
    """The units to take of each source, at most what it has times ``maximum_repetitions``.

    By weights: shares in proportion, as much in all as the scarcest source allows. Raises UserError for
    a source that the recipe names and the data lack, or the other way round.
    """
    asked = config.weights or {source: tokens * config.per_token() for source, tokens in config.tokens.items()}
    key = "weights" if config.weights else "tokens"
    if not config.mixes():
        return {source: float(units) for source, units in available.items()}
    for source in sorted(asked.keys() - available.keys()):
        raise UserError(f"publish.{key}: no document has the source {source!r}; there are: {_names(available)}")
    for source in sorted(available.keys() - asked.keys()):
        raise UserError(f"publish.{key}: does not name the source {source!r}: give it a share, or 0 to leave it out")
    most = {source: available[source] * config.maximum_repetitions for source in asked}
    if config.weights:
        total = min(most[source] / share for source, share in asked.items() if share)
        asked = {source: share * total for source, share in asked.items()}
    return {source: min(units, most[source]) for source, units in asked.items()}


def _names(sources: Iterable[str]) -> str:
    return ", ".join(repr(source) for source in sorted(sources)) or "none"


def copies_and_rest(wanted: float, available: int) -> tuple[int, float]:
    """Whole copies of a source, and the units that one more copy of some documents adds."""
    copies = int(wanted // available) if available else 0
    return copies, wanted - copies * available


def place(row: Mapping[str, Any], config: Config, seed: int, quotas: Mapping[str, Quota]) -> dict[str, Any]:
    """The row of a document in its split, or dropped by rule `mixture` (its place beyond its source's)."""
    document = from_row(row)
    cluster = cluster_of(document)
    quota, bucket = quotas.get(document.source, Quota()), bucket_of(cluster, seed)
    copies = quota.of(bucket)
    if not copies:
        return to_dropped(document, "publish", Verdict(False, "mixture", bucket / BUCKETS, quota.cut / BUCKETS, "max"))
    split = split_of(cluster, seed, config)
    if copies > 1 and split == "train":
        document.metadata["repeat"] = str(copies)
    return to_row(document, split)


def place_all(
    batches: Iterable[pa.RecordBatch], config: Config, seed: int, quotas: Mapping[str, Quota]
) -> Iterator[pa.RecordBatch]:
    """The rows of all splits and of table dropped, hashed."""
    for batch in batches:
        yield to_batch([place(row, config, seed, quotas) for row in batch.to_pylist()], ROW)


def given(totals: Sequence[Mapping[str, Any]], wanted: Mapping[str, float], config: Config) -> dict[str, Any]:
    """By source, for the manifest: documents used, estimated tokens (copies counted) asked for and given.

    ``totals`` have a source's ``documents``, ``units`` and ``bytes`` as used in each ``split`` and ``language``.
    """
    found: dict[str, Any] = {}
    for source in sorted(wanted):
        rows = [row for row in totals if row["source"] == source]
        tokens = round(sum(row["units"] for row in rows) / config.per_token())
        documents = sum(row["documents"] for row in rows)
        found[source] = {"documents": documents, "tokens": tokens, "asked": round(wanted[source] / config.per_token())}
    return found


def languages(totals: Sequence[Mapping[str, Any]], config: Config) -> dict[str, Any]:
    """By language, those with most documents first: documents used, estimated tokens (copies counted)."""
    found: dict[str, list[int]] = {}
    for row in totals:
        sums = found.setdefault(row["language"], [0, 0])
        sums[0], sums[1] = sums[0] + row["documents"], sums[1] + row["units"]
    order = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    return {code: {"documents": n, "tokens": round(units / config.per_token())} for code, (n, units) in order}
