"""Batches of a token stream: which samples a rank needs, read ahead by the context's feed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataeng.tokens.shards import Stream
from training.context import Context
from training.data.order import Mixture, rank_share, sample_of
from training.trainer import Batch, Step

_CHUNK_BYTES = 8 << 20
IGNORED = -100  # a target that counts for nothing
# S tokens of a sample, L tokens of a row; R rows


@dataclass(frozen=True)
class Plan:
    """All that says which samples a rank takes, so that it can be pickled and read anywhere."""

    streams: dict[str, Stream]
    mixture: Mixture
    seed: int
    window: int
    sample_tokens: int
    batch: int
    rank: int
    world: int

    def where(self, g: int) -> tuple[str, int]:
        """The source of global sample g, and the sample's index there."""
        name, ordinal = self.mixture.at(g)
        return name, sample_of(self.seed, name, ordinal, self.streams[name].source.samples, self.window)

    def read(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        """This rank's samples (n, S + 1) of ``steps`` steps from position ``start`` on; key = (start, steps)."""
        start, steps = key
        wanted = [
            self.where(g)
            for step in range(steps)
            for g in rank_share(start + step * self.batch, self.batch, self.rank, self.world)
        ]
        tokens = np.empty((len(wanted), self.sample_tokens + 1), np.int64)
        for name, stream in self.streams.items():
            rows = [row for row, (source, _) in enumerate(wanted) if source == name]
            if rows:
                tokens[rows] = stream.samples([wanted[row][1] for row in rows], self.sample_tokens, self.window)
        return {"tokens": tokens}


def rows_of(tokens: np.ndarray, row_tokens: int) -> Tensor:
    """Samples (n, S + 1) cut into rows (n · S/L, L + 1); the last token of one row is the first of the next."""
    count, width = tokens.shape
    pieces = [tokens[:, at : at + row_tokens + 1] for at in range(0, width - 1, row_tokens)]
    return torch.from_numpy(np.stack(pieces, 1).reshape(count * len(pieces), row_tokens + 1))


def micro_batches(rows_RL: Tensor, size: int, count: int) -> list[Batch]:
    """Rows cut into ``count`` micro-batches of ``size`` rows; one that is short is filled up by ignored rows."""
    batches = []
    for index in range(count):
        part = rows_RL[index * size : (index + 1) * size]
        filler = torch.zeros(size - len(part), rows_RL.shape[1], dtype=rows_RL.dtype)
        targets = torch.cat((part[:, 1:], filler[:, 1:] + IGNORED))
        batches.append({"tokens": torch.cat((part, filler))[:, :-1].contiguous(), "targets": targets.contiguous()})
    return batches


def micro_count(samples: int, rows_a_sample: int, size: int, world: int) -> int:
    """The micro-batches that every rank runs for a batch of ``samples``: those of the fullest rank."""
    most = max(len(rank_share(0, samples, rank, world)) for rank in range(world))
    return -(-most * rows_a_sample // size)


def batches(context: Context, plan: Plan, row_tokens: int, position: int, steps: int) -> Iterator[Step]:
    """The steps from ``position`` on, samples read ahead in chunks of some steps."""
    settings = context.config
    bytes_a_step = 8 * (plan.sample_tokens + 1) * -(-plan.batch // context.world)
    chunk = min(64, max(1, _CHUNK_BYTES // bytes_a_step))
    rows_a_sample = plan.sample_tokens // row_tokens
    count = micro_count(plan.batch, rows_a_sample, settings.micro_batch, context.world)
    keys = [(position + done * plan.batch, min(chunk, steps - done)) for done in range(0, steps, chunk)]
    for (start, width), value in zip(keys, context.feed(plan.read, keys), strict=True):
        used = 0
        for step in range(width):
            begin = start + step * plan.batch
            mine = len(rank_share(begin, plan.batch, plan.rank, plan.world))
            rows = rows_of(value["tokens"][used : used + mine], row_tokens)
            used += mine
            yield Step(
                micro_batches(rows, settings.micro_batch, count),
                float(plan.batch * plan.sample_tokens),
                begin + plan.batch,
            )


def sample_ids(plan: Plan, position: int, steps: int) -> list[list[tuple[str, int]]]:
    """For each of the steps, the samples that this plan's rank takes."""
    return [
        [plan.where(g) for g in rank_share(position + step * plan.batch, plan.batch, plan.rank, plan.world)]
        for step in range(steps)
    ]


def validation_rows(
    context: Context, streams: dict[str, Stream], sample_tokens: int, row_tokens: int, limit: int
) -> list[Batch]:
    """This rank's micro-batches of at most ``limit`` samples, taken from all sources in turn, in their order."""
    chosen: list[tuple[str, int]] = []
    for ordinal in range(limit):
        chosen += [(name, ordinal) for name, stream in streams.items() if ordinal < stream.source.samples]
    chosen = chosen[:limit]
    mine = [chosen[index] for index in context.share(len(chosen))]
    parts: Sequence[Any] = [streams[name].samples([index], sample_tokens) for name, index in mine]
    tokens = np.concatenate(parts) if parts else np.empty((0, sample_tokens + 1), np.int64)
    size = context.config.micro_batch
    count = micro_count(len(chosen), sample_tokens // row_tokens, size, context.world)
    rows = rows_of(tokens, row_tokens) if len(tokens) else torch.empty(0, row_tokens + 1, dtype=torch.int64)
    return micro_batches(rows, size, count)
