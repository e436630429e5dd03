"""Which samples a rank reads at which step. It is read in processes that need no torch, and must not import it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataeng.tokens.shards import Stream
from training.data.order import ByStep, Mixture, rank_share, sample_of


@dataclass(frozen=True)
class Plan:
    """All that says which samples a rank takes, so that it can be pickled and read anywhere."""

    streams: dict[str, Stream]
    mixture: Mixture
    seed: int
    window: int
    sample_tokens: int
    batch: ByStep
    rank: int
    world: int
    in_order: frozenset[str] = frozenset()  # sources whose windows come as they were published

    def where(self, g: int) -> tuple[str, int]:
        """The source of global sample g, and the sample's index there."""
        name, ordinal = self.mixture.at(g)
        size, in_order = self.streams[name].source.samples, name in self.in_order
        return name, sample_of(self.seed, name, ordinal, size, self.window, in_order)

    def share(self, step: int) -> range:
        """The global samples of this rank in a step."""
        return rank_share(self.batch.position(step), self.batch.at(step), self.rank, self.world)

    def read(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        """This rank's samples (n, S + 1) of some steps; key = (the first of them, how many)."""
        first, steps = key
        wanted = [self.where(g) for step in range(first, first + steps) for g in self.share(step)]
        tokens = np.empty((len(wanted), self.sample_tokens + 1), np.int64)
        for name, stream in self.streams.items():
            rows = [row for row, (source, _) in enumerate(wanted) if source == name]
            if rows:
                tokens[rows] = stream.samples([wanted[row][1] for row in rows], self.sample_tokens, self.window)
        return {"tokens": tokens}
