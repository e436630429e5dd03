"""A table of n-grams: which stand in a text, where, and whose they are.

An n-gram costs 8 bytes for its hash, 8 for where its owners stand and 8 for each owner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_NOTHING = np.zeros(0, np.int64)


def hashes_of(ids: np.ndarray, size: int) -> np.ndarray:
    """64-bit hashes (uint64) of every ``size`` words in a row (their number hashed too)."""
    return rolling(ids, {size})[size]


def rolling(ids: np.ndarray, sizes: Collection[int]) -> dict[int, np.ndarray]:
    """The hashes of every n-gram of each size, each size made from the one below."""
    found, state = {}, np.zeros(len(ids) + 1, np.uint64)
    for size in range(1, max(sizes, default=0) + 1):
        state = state[: max(len(ids) - size + 1, 0)]
        state = state * _FACTOR + ids[size - 1 : size - 1 + len(state)]
        if size in sizes:
            found[size] = state + np.uint64(size)
    return found


class Read(NamedTuple):
    """A text as it is looked up: its words, their numbers (uint64; 0: in no item) and its n-grams."""

    words: list[str]
    ids: np.ndarray
    places: dict[int, np.ndarray]  # for each size, where n-grams of known words alone begin
    hashes: dict[int, np.ndarray]  # and their hashes


def read(own: list[str], vocabulary: Mapping[str, int], sizes: Collection[int]) -> Read:
    """Prepare a text's words for looking n-grams of these sizes up."""
    get = vocabulary.get
    ids = np.array([get(word, 0) for word in own], np.uint64)
    unknown = np.concatenate(([0], np.cumsum(ids == 0)))
    places, hashes = {}, {}
    for size, every in rolling(ids, sizes).items():
        places[size] = np.flatnonzero(unknown[size:] == unknown[: max(len(unknown) - size, 0)])
        hashes[size] = every[places[size]]
    return Read(own, ids, places, hashes)


@dataclass(frozen=True)
class Grams:
    """Different n-grams by number. Number e belongs to ``owners[offsets[e]:offsets[e + 1]]``."""

    sizes: tuple[int, ...]  # lengths of n-grams, in words
    hashes: np.ndarray  # uint64, sorted
    size_of: np.ndarray  # int16, words of each n-gram
    offsets: np.ndarray  # int64
    owners: np.ndarray  # int32
    places: np.ndarray  # int32, the n-gram's first word in its owner

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in (self.hashes, self.size_of, self.offsets, self.owners, self.places))

    def look_up(self, text: Read) -> tuple[np.ndarray, np.ndarray]:
        """Where a text holds n-grams: positions and numbers, both int64."""
        positions, numbers = [_NOTHING], [_NOTHING]
        for size in self.sizes:
            if len(text.places[size]):
                at = np.minimum(np.searchsorted(self.hashes, text.hashes[size]), len(self.hashes) - 1)
                found = self.hashes[at] == text.hashes[size]
                positions.append(text.places[size][found])
                numbers.append(at[found])
        return np.concatenate(positions), np.concatenate(numbers)

    def owned(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every (index into ``numbers``, index into ``owners``) of the n-grams' owners."""
        starts = self.offsets[numbers]
        counts = self.offsets[numbers + 1] - starts
        which = np.repeat(np.arange(len(numbers)), counts)
        inner = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, starts[which] + inner


@dataclass
class Builder:
    """Collects n-grams and makes the table."""

    _hashes: list[np.ndarray] = field(default_factory=list)
    _owners: list[np.ndarray] = field(default_factory=list)
    _places: list[np.ndarray] = field(default_factory=list)
    _sizes: list[np.ndarray] = field(default_factory=list)

    def add(self, ids: np.ndarray, size: int, owner: int, start: int = 0) -> None:
        """Add every n-gram of ``size`` words in ``ids``; the first stands at ``start`` of its owner."""
        hashes = hashes_of(ids, size)
        self._hashes.append(hashes)
        self._owners.append(np.full(len(hashes), owner, np.int32))
        self._places.append(np.arange(start, start + len(hashes), dtype=np.int32))
        self._sizes.append(np.full(len(hashes), size, np.int16))

    def table(self, owners_most: int | None = None) -> Grams:
        """The table; n-grams with more than ``owners_most`` owners say nothing and are left out."""
        hashes = _joined(self._hashes, np.uint64)
        owners, places = _joined(self._owners, np.int32), _joined(self._places, np.int32)
        sizes = _joined(self._sizes, np.int16)
        order = np.lexsort((places, owners, hashes))
        hashes, owners, places, sizes = hashes[order], owners[order], places[order], sizes[order]
        if owners_most is not None and len(hashes):
            _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
            few = counts[inverse] <= owners_most
            hashes, owners, places, sizes = hashes[few], owners[few], places[few], sizes[few]
        different, starts = np.unique(hashes, return_index=True)
        offsets = np.append(starts, len(hashes)).astype(np.int64)
        lengths = tuple(int(size) for size in np.unique(sizes))
        return Grams(lengths, different, sizes[starts], offsets, owners, places)


def _joined(arrays: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)
