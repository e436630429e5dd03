"""The index of evaluation items, and what of it a document holds.

An entry (a different n-gram) costs 8 bytes for its hash, 8 for where its items stand and 4 for
each item that has it; the vocabulary about 100 bytes a word. A thousand questions of 50 words are
some 38,000 entries: under 2 MB with their vocabulary. Every worker holds it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dataeng.decontaminate import Config
from dataeng.decontaminate.items import Item
from dataeng.decontaminate.words import words
from dataeng.document import Document, Verdict

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
SURE = 0.5  # the share of an item from which common n-grams count too


@dataclass(frozen=True)
class Index:
    """n-grams of evaluation items. Entry e belongs to the items ``owners[offsets[e]:offsets[e + 1]]``."""

    vocabulary: dict[str, int]  # from 1; 0 stands for words that no item has
    sizes: tuple[int, ...]  # lengths of n-grams, in words
    hashes: np.ndarray  # uint64, sorted
    offsets: np.ndarray  # int64
    owners: np.ndarray  # int32, numbers of items
    names: list[str]  # of items
    totals: np.ndarray  # int32, different n-grams of each item
    too_short: dict[str, int]  # items without any n-gram, by set


class Match(NamedTuple):
    """The item of which a document holds the greatest share."""

    item: str
    similarity: float
    is_common: bool  # nothing but common n-grams were found, and less than half of any item


def build(items: Sequence[Item], config: Config) -> Index:
    """The index of items; those without a text that is long enough are counted as too short."""
    vocabulary: dict[str, int] = {}
    entries: list[tuple[int, int]] = []
    totals, too_short, sizes = np.zeros(len(items), np.int32), dict[str, int](), set[int]()
    for number, item in enumerate(items):
        own: set[int] = set()
        for text in item.texts:
            ids = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in words(text)]
            size = min(config.ngram, len(ids))
            if size >= min(config.shortest, config.ngram):
                sizes.add(size)
                own.update(_hashes(np.array(ids, np.uint64), size).tolist())
        totals[number] = len(own)
        entries += [(entry, number) for entry in own]
        if not own:
            name = item.name.rpartition("/")[0]
            too_short[name] = too_short.get(name, 0) + 1
    entries.sort()
    hashes, starts = np.unique(np.array([entry for entry, _ in entries], np.uint64), return_index=True)
    return Index(
        vocabulary=vocabulary,
        sizes=tuple(sorted(sizes)),
        hashes=hashes,
        offsets=np.append(starts, len(entries)).astype(np.int64),
        owners=np.array([number for _, number in entries], np.int32),
        names=[item.name for item in items],
        totals=totals,
        too_short=too_short,
    )


def memory_bytes(index: Index) -> int:
    """About what an index takes in a worker's memory."""
    arrays = index.hashes.nbytes + index.offsets.nbytes + index.owners.nbytes + index.totals.nbytes
    return arrays + 100 * (len(index.vocabulary) + len(index.names))


def _hashes(ids: np.ndarray, size: int) -> np.ndarray:
    """64-bit hashes of every ``size`` words in a row (their length hashed too)."""
    hashes = np.full(max(len(ids) - size + 1, 0), size, np.uint64)
    for start in range(size if len(hashes) else 0):
        hashes = hashes * _FACTOR + ids[start : start + len(hashes)]
    return hashes


def entries_in(text: str, index: Index) -> np.ndarray:
    """The numbers (sorted int64) of the index's entries that stand in a text."""
    if not index.sizes:
        return np.zeros(0, np.int64)
    get = index.vocabulary.get
    ids = np.array([get(word, 0) for word in words(text)], np.uint64)
    unknown = np.concatenate(([0], np.cumsum(ids == 0)))
    found = [np.zeros(0, np.int64)]
    for size in index.sizes:
        known = np.flatnonzero(unknown[size:] == unknown[: max(len(unknown) - size, 0)])
        if not len(known):
            break  # longer n-grams of known words are not there either
        hashes = _hashes(ids, size)[known]
        places = np.minimum(np.searchsorted(index.hashes, hashes), len(index.hashes) - 1)
        found.append(places[index.hashes[places] == hashes])
    return np.unique(np.concatenate(found))


def match(entries: np.ndarray, index: Index, common: np.ndarray) -> Match | None:
    """The item of which most was found (ties by its place in the sets), or None where nothing was.

    ``common`` are the numbers of entries that many documents hold.
    """
    if not len(entries):
        return None
    owned = np.concatenate([index.owners[index.offsets[e] : index.offsets[e + 1]] for e in entries.tolist()])
    counts = np.bincount(owned, minlength=len(index.names))
    shares = counts / np.maximum(index.totals, 1)
    best = int(np.argmax(shares))
    similarity = float(shares[best])
    return Match(index.names[best], similarity, similarity < SURE and bool(np.isin(entries, common).all()))


def decide(found: Match | None, config: Config) -> Verdict:
    """Drop a document that holds more of an item than ``share_max``, by more than common n-grams."""
    if found is None or found.is_common or found.similarity <= config.share_max:
        return Verdict(True)
    return Verdict(False, "contaminated", found.similarity, config.share_max, "max")


def find(document: Document, index: Index, common: Iterable[int] = ()) -> Match | None:
    """What of the evaluation sets a document holds."""
    return match(entries_in(document.text or "", index), index, np.array(sorted(common), np.int64))
