"""How much of each group, which documents, and which split: pure functions of a document and its group.

A document's place is drawn from its cluster's text and the seed: 2^16 buckets. A group's budget becomes
a whole number of copies for all its documents and one more for those below a cut bucket, found from sums by
bucket. So a budget is met to within one bucket (1/65,536 of the group, or a document), never exceeded.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dataeng.cli import Failure
from dataeng.dedup.normalise import exact_hash
from dataeng.document import ROW, Document, Verdict, from_row, row_hash, to_batch, to_dropped, to_row
from dataeng.publish import Config
from dataeng.publish.groups import UNKNOWN, Target, label_of

log = logging.getLogger("millrace")
BUCKETS = 1 << 16
# What is measured of a document, to be summed by the first five.
MEASURED = pa.schema(
    [
        ("group", pa.string()),
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
    """A group's share: every document ``copies`` times, and once more below bucket ``cut``."""

    copies: int = 1
    cut: int = 0

    def of(self, bucket: int) -> int:
        """How often a document of this bucket is used; 0 leaves it out."""
        return self.copies + (bucket < self.cut)


def draw(seed: int, purpose: str, cluster: str) -> float:
    """A number in [0, 1) that follows from seed, purpose and cluster."""
    data = f"{seed}\0{purpose}\0{cluster}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()[:6], "big") / (1 << 48)


def cluster_of(document: Document) -> str:
    """What dedup recorded as the document's cluster, else the exact hash of its text."""
    return document.metadata.get("cluster") or exact_hash(document.text or "").hex()[:32]


def bucket_of(cluster: str, seed: int) -> int:
    """The bucket that decides whether a document fits its group's budget."""
    return int(draw(seed, "mixture", cluster) * BUCKETS)


def split_of(cluster: str, seed: int, config: Config) -> str:
    """The split of a cluster: train, validation or test."""
    drawn = draw(seed, "split", cluster)
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
            place |= {"group": label_of(document, config), "source": document.source}
            rows.append({**place, "documents": 1, "units": units, "bytes": size})
        yield pa.RecordBatch.from_pylist(rows, schema=MEASURED)


def copies_and_rest(wanted: float, available: int) -> tuple[int, float]:
    """Whole copies of a group, and the units that one more copy of some documents adds."""
    copies = int(wanted / available + 1e-9) if available else 0  # 99.999… of 100 is all of it
    return copies, max(0.0, wanted - copies * available)


def schema_of(config: Config) -> pa.Schema:
    """The columns of the splits: those of every document and those that the recipe adds."""
    kinds = {"scores": pa.float64(), "metadata": pa.string()}
    more = [pa.field(name, kinds[place.partition(".")[0]]) for name, place in config.columns.items()]
    return pa.schema([*more, *ROW])


def _with_columns(row: dict[str, Any], config: Config) -> dict[str, Any]:
    """The row with the columns that the recipe takes out of the maps, hashed anew."""
    for name, where in config.columns.items():
        column, _, key = where.partition(".")
        row[name] = row[column].get(key)
    return row | {"row_hash": row_hash(row)} if config.columns else row


def place(row: Mapping[str, Any], config: Config, seed: int, quotas: Mapping[str, Quota]) -> dict[str, Any]:
    """The row of a document in its split, or dropped by rule `mixture` (its place beyond its group's)."""
    document = from_row(row)
    cluster = cluster_of(document)
    quota, bucket = quotas.get(label_of(document, config), Quota()), bucket_of(cluster, seed)
    copies = quota.of(bucket)
    if not copies:
        why = Verdict(False, "mixture", bucket / BUCKETS, quota.cut / BUCKETS, "max")
        return _with_columns(to_dropped(document, "publish", why), config)
    split = split_of(cluster, seed, config)
    if split != "train" and "origin" in document.metadata:  # a copy of what is held back: made for other splits
        return _with_columns(to_dropped(document, "publish", Verdict(False, "augmented")), config)
    if copies > 1 and split == "train":
        document.metadata["repeat"] = str(copies)
    return _with_columns(to_row(document, split), config)


def place_all(
    batches: Iterable[pa.RecordBatch], config: Config, seed: int, quotas: Mapping[str, Quota]
) -> Iterator[pa.RecordBatch]:
    """The rows of all splits and of table dropped, hashed."""
    schema = schema_of(config)
    for batch in batches:
        yield to_batch([place(row, config, seed, quotas) for row in batch.to_pylist()], schema)


Totals = Sequence[Mapping[str, Any]]  # `documents`, `units`, `bytes` used, by `group`, `source`, `split`, `language`


def _sums(totals: Totals, column: str, config: Config) -> dict[str, dict[str, int]]:
    found: dict[str, list[int]] = {}
    for row in totals:
        sums = found.setdefault(row[column], [0, 0])
        sums[0], sums[1] = sums[0] + row["documents"], sums[1] + row["units"]
    return {key: {"documents": n, "tokens": round(units / config.per_token())} for key, (n, units) in found.items()}


def given(
    totals: Totals, targets: Mapping[str, Target], available: Mapping[str, int], config: Config
) -> dict[str, Any]:
    """By group, for the manifest: documents used, estimated tokens given (copies counted), asked for and there."""
    used, per = _sums(totals, "group", config), config.per_token()
    return {
        label: {
            **used.get(label, {"documents": 0, "tokens": 0}),
            "asked": round(targets[label].asked / per),
            "available": round(available[label] / per),
        }
        for label in sorted(targets)
    }


def sources(totals: Totals, asked: Mapping[str, Target], config: Config) -> dict[str, Any]:
    """By source: documents used, estimated tokens given (copies counted), and asked for where groups say it."""
    used = _sums(totals, "source", config)
    if config.by == ["source"]:
        for label in asked:
            used.setdefault(label, {"documents": 0, "tokens": 0})
            used[label]["asked"] = round(asked[label].asked / config.per_token())
    return dict(sorted(used.items()))


def languages(totals: Totals, config: Config) -> dict[str, Any]:
    """By language, those with most documents first: documents used, estimated tokens (copies counted)."""
    found = _sums(totals, "language", config)
    return dict(sorted(found.items(), key=lambda item: (-item[1]["documents"], item[0])))


def details(
    totals: Totals, targets: Mapping[str, Target], available: Mapping[str, int], config: Config
) -> dict[str, Any]:
    """What the manifest says of the corpus. Raises Failure for too little text; says which split is empty."""
    size = sum(row["bytes"] for row in totals)
    if size < config.minimum_bytes:
        problem = f"only {size:,} bytes of text remain, publish.minimum_bytes wants {config.minimum_bytes:,}"
        raise Failure(f"publish: {problem}")
    splits = {name: sum(row["documents"] for row in totals if row["split"] == name) for name in config.kept_tables}
    for name in (name for name in ("validation", "test") if getattr(config, name) and not splits[name]):
        log.warning("publish: no document fell into %s: raise publish.%s", name, name)
    found = {"bytes": size, "splits": splits, "languages": languages(totals, config)}
    found["sources"] = sources(totals, targets, config)
    return found | {"groups": given(totals, targets, available, config)}
