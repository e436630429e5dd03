"""Which sample comes when: pure functions of the seed and the position g, the count of global samples used.

No array of the data's size is kept. Step s takes global samples [g, g + B); a rank takes its part of them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_ROUNDS = 6
_PATTERN, _LONGEST = 4096, 1 << 18  # weights of a mixture are rounded to parts of this; of at most that
_LEAST = 16  # parts of the smallest weight, where the longest period has so many: rounded by 3 % at most


def key_of(*parts: int | str) -> int:
    """A 64-bit key from parts."""
    text = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(indices: np.ndarray | int, size: int, key: int) -> np.ndarray:
    """Where a keyed permutation of 0 … size - 1 sends each index: a Feistel network, walked until inside.

    (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.)
    """
    x = np.atleast_1d(np.asarray(indices, np.uint64)).copy()
    if x.size and int(x.max()) >= size:
        raise ValueError(f"index {int(x.max())} is outside of a permutation of {size}")
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = [np.uint64(key_of(key, turn)) for turn in range(_ROUNDS)]
    outside = np.ones(x.shape, bool)
    with np.errstate(over="ignore"):
        while outside.any():
            left, right = x[outside] >> half, x[outside] & mask
            for turn in keys:
                left, right = right, left ^ (_mix(right + turn) & mask)
            x[outside] = (left << half) | right
            outside = x >= size
    return x.astype(np.int64)


def sample_of(seed: int, source: str, ordinal: int, size: int, window: int, in_order: bool = False) -> int:
    """The sample that a source of ``size`` samples gives as its ``ordinal``-th, over all epochs.

    Each epoch is another permutation: of windows of neighbouring samples, and inside each of them. With ``in_order``
    windows come as they were published, and only samples inside each are permuted: no sample stands ``window`` places
    from its own or more. The incomplete last window comes last.
    """
    epoch, k = divmod(ordinal, size)
    whole = size // window
    if k < whole * window:
        number, width = k // window, window
        place = number if in_order else int(permute(number, whole, key_of(seed, source, epoch, "windows"))[0])
    else:
        place, width = whole, size - whole * window
    return place * window + int(permute(k % window, width, key_of(seed, source, epoch, place))[0])


def in_order(order: str | Mapping[str, str], sizes: Mapping[str, int], window: int) -> frozenset[str]:
    """The sources whose windows come as published, by ``order`` (`permuted` or `as_published`) of all or by source.

    ``sizes`` has the samples of each source that is drawn. Raises ValueError, the key first, for an order of a source
    that is not, and for one that the shuffling inside windows takes away again.
    """
    named = order if isinstance(order, Mapping) else dict.fromkeys(sizes, order)
    if unknown := sorted(named.keys() - sizes.keys()):
        raise ValueError(
            f"order: no sample of a source {unknown[0]!r} is drawn; those drawn: {', '.join(sorted(sizes))}"
        )
    chosen = frozenset(source for source, how in named.items() if how == "as_published")
    if small := sorted(source for source in chosen if 1 < sizes[source] <= window):
        raise ValueError(
            f"window = {window}: the {sizes[small[0]]} samples of {small[0]!r} are one window, in which they are "
            'shuffled, and order = "as_published" does nothing: lower it (1: exactly as published)'
        )
    return chosen


@dataclass(frozen=True)
class Interval:
    """From the global sample ``start`` on, sources are mixed by ``weights``."""

    start: int
    weights: Mapping[str, float]


class Mixture:
    """The source of each global sample, by largest deficit, and the sample's ordinal there.

    Weights are rounded to parts of 4096, and finer (to 262,144) until the smallest has 16 parts: the order repeats,
    and any g is found at once. A weight below that comes once a period (``oversampled``).
    """

    def __init__(self, intervals: Sequence[Interval]) -> None:
        starts = [interval.start for interval in intervals]
        if not intervals or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"the intervals of a mixture begin at 0 and ascend; these begin at {starts}")
        self.starts = starts
        self.names = sorted({name for interval in intervals for name in interval.weights})
        self.patterns = [_pattern([interval.weights.get(name, 0.0) for name in self.names]) for interval in intervals]
        self.before: list[np.ndarray] = [np.zeros(len(self.names), np.int64)]
        for index, start in enumerate(starts[1:]):
            self.before.append(self._counts(index, start))

    def _counts(self, interval: int, g: int) -> np.ndarray:
        """How many of the first g global samples came from each source, g in that interval or at its end."""
        pattern = self.patterns[interval]
        whole, rest = divmod(g - self.starts[interval], len(pattern.order))
        return self.before[interval] + whole * pattern.parts + np.bincount(pattern.order[:rest], None, len(self.names))

    def at(self, g: int) -> tuple[str, int]:
        """The source of global sample g, and how many samples that source gave before."""
        interval = int(np.searchsorted(self.starts, g, side="right")) - 1
        pattern = self.patterns[interval]
        whole, place = divmod(g - self.starts[interval], len(pattern.order))
        source = int(pattern.order[place])
        before = int(self.before[interval][source]) + whole * int(pattern.parts[source])
        return self.names[source], before + int(pattern.earlier[place])


def oversampled(weights: Mapping[str, float], bound: float = 1.1) -> dict[str, float]:
    """The sources whose weight is so small that they come more often than it says, past ``bound``: how much so."""
    total, names = sum(weights.values()), sorted(weights)
    parts = _parts([weights[name] for name in names])
    found = {n: p * total / (weights[n] * parts.sum()) for n, p in zip(names, parts, strict=True) if p}
    return {name: float(by) for name, by in found.items() if by > bound}


def _parts(weights: Sequence[float]) -> np.ndarray:
    """Each weight's places in one period."""
    shares = np.asarray(weights, float)
    if (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"the weights of a mixture are at least 0, one of them more: {list(weights)}")
    shares, period = shares / shares.sum(), _PATTERN
    while period < _LONGEST and shares[shares > 0].min() * period < _LEAST:
        period *= 2
    return np.maximum((shares * period).round(), shares > 0).astype(np.int64)


class _Pattern(NamedTuple):
    """One period of a mixture: places' sources, how often each came before in it, and sources' places."""

    order: np.ndarray
    earlier: np.ndarray
    parts: np.ndarray


def _pattern(weights: Sequence[float]) -> _Pattern:
    """One period of sources, by largest deficit."""
    parts = _parts(weights)
    period = int(parts.sum())
    order, earlier = np.empty(period, np.int32), np.empty(period, np.int32)
    given = np.zeros(len(parts), np.int64)
    for place in range(period):
        source = np.argmax(parts * (place + 1) - given * period)
        order[place], earlier[place] = source, given[source]
        given[source] += 1
    return _Pattern(order, earlier, parts)


class ByStep:
    """A whole number that depends on the step: ``pieces`` are (first step, value), from step 0 on, ascending.

    Read as a schedule of batches, it says at which global sample each step begins.
    """

    def __init__(self, pieces: Sequence[tuple[int, int]]) -> None:
        self.starts = [start for start, _ in pieces]
        self.values = [value for _, value in pieces]
        if not pieces or self.starts[0] != 0 or self.starts != sorted(set(self.starts)) or min(self.values) < 1:
            raise ValueError(f"a schedule is of (step, value) from step 0 on, steps ascending, not {list(pieces)}")
        self.positions = [0]
        for index in range(len(pieces) - 1):
            self.positions.append(
                self.positions[-1] + (self.starts[index + 1] - self.starts[index]) * self.values[index]
            )

    def at(self, step: int) -> int:
        """The value of a step."""
        return self.values[bisect_right(self.starts, step) - 1]

    def position(self, step: int) -> int:
        """The sum of the values of all earlier steps: the global sample that a step begins with."""
        piece = bisect_right(self.starts, step) - 1
        return self.positions[piece] + (step - self.starts[piece]) * self.values[piece]

    def step(self, position: int) -> int:
        """The step that begins with a global sample; raises ValueError where none does."""
        piece = bisect_right(self.positions, position) - 1
        steps, rest = divmod(position - self.positions[piece], self.values[piece])
        if rest:
            raise ValueError(f"no step begins with the global sample {position}")
        return self.starts[piece] + steps


def rank_share(start: int, batch: int, rank: int, world: int) -> range:
    """The global samples of a rank in the step that takes [start, start + batch)."""
    return range(start + rank * batch // world, start + (rank + 1) * batch // world)
