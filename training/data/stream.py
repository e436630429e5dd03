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
from training.data.order import ByStep
from training.data.plan import Plan
from training.likelihood import IGNORED
from training.trainer import Batch, Step

_CHUNK_BYTES = 8 << 20
_SIZES = 8  # of micro-batches, up to the largest
# S tokens of a sample, L tokens of a row; R rows


@dataclass(frozen=True)
class Rows:
    """How samples become rows of a micro-batch."""

    sample_tokens: int
    samples: int  # that a worker takes at once
    end: int | None  # the token that ends a document; None: rows are one text, whatever is in them

    def cut(self, tokens: np.ndarray, row_tokens: int) -> Tensor:
        """Samples (n, S + 1) as rows (n · S/L, L + 1); the last token of one row is the first of the next."""
        pieces = [tokens[:, at : at + row_tokens + 1] for at in range(0, self.sample_tokens, row_tokens)]
        return torch.from_numpy(np.stack(pieces, 1).reshape(len(tokens) * len(pieces), row_tokens + 1))

    def micro(self, tokens: np.ndarray, row_tokens: int, most: int) -> list[Batch]:
        """Samples as micro-batches of one size, as many as a rank with ``most`` samples needs."""
        rows_a_sample = self.sample_tokens // row_tokens
        rows_RL, count = self.cut(tokens, row_tokens), -(-most // self.samples)
        # Hardly more than are there: rows that fill up are computed as well. One of few sizes: each is compiled.
        part = -(-self.samples // _SIZES)
        each = min(self.samples, -(-most // max(count, 1) // part) * part) if most else 0
        return micro_batches(rows_RL, each * rows_a_sample, count, self.end)


def documents(tokens_RL: Tensor, end: int) -> dict[str, Tensor]:
    """Positions, counted from each document's start, and the documents' numbers (``segments``), both (R, L).

    ``end`` is its document's last token. Nothing where no row holds two documents: causal attention is enough.
    """
    begins_RL = torch.zeros_like(tokens_RL)
    begins_RL[:, 1:] = tokens_RL[:, :-1] == end
    if not begins_RL.any():
        return {}
    places_L = torch.arange(tokens_RL.shape[1])
    positions_RL = places_L - (begins_RL * places_L).cummax(1).values
    return {"positions": positions_RL, "segments": begins_RL.cumsum(1) + 1}


def micro_batches(rows_RL: Tensor, size: int, count: int, end: int | None = None) -> list[Batch]:
    """Rows (R, L + 1) cut into ``count`` micro-batches of ``size`` rows, the last filled up by ignored rows.

    With ``end``, rows of several documents say where each begins.
    """
    batches = []
    for index in range(count):
        part = rows_RL[index * size : (index + 1) * size]
        filler = torch.zeros(size - len(part), rows_RL.shape[1], dtype=rows_RL.dtype)
        targets = torch.cat((part[:, 1:], filler[:, 1:] + IGNORED))
        tokens = torch.cat((part, filler))[:, :-1].contiguous()
        batch = {"tokens": tokens, "targets": targets.contiguous()}
        batches.append(batch | (documents(tokens, end) if end is not None else {}))
    return batches


def fullest(samples: int, world: int) -> int:
    """The samples of the rank that has most of a batch; the others run as many micro-batches."""
    return -(-samples // world)


def batches(
    context: Context, plan: Plan, rows: Rows, row_tokens: ByStep, position: int, max_steps: int
) -> Iterator[Step]:
    """The steps from a position on up to ``max_steps``, samples read ahead in chunks of some steps."""
    begin = plan.batch.step(position)
    if begin >= max_steps:
        return
    bytes_a_step = 8 * (plan.sample_tokens + 1) * fullest(max(plan.batch.values), plan.world)
    chunk = min(64, max(1, _CHUNK_BYTES // bytes_a_step))
    keys = [(step, min(chunk, max_steps - step)) for step in range(begin, max_steps, chunk)]
    for (first, width), value in zip(keys, context.feed(plan.read, keys), strict=True):
        used = 0
        for step in range(first, first + width):
            mine, batch = len(plan.share(step)), plan.batch.at(step)
            tokens = value["tokens"][used : used + mine]
            used += mine
            micro = rows.micro(tokens, row_tokens.at(step), fullest(batch, plan.world))
            yield Step(micro, float(batch * plan.sample_tokens), plan.batch.position(step + 1))


def validation_rows(
    context: Context, streams: dict[str, Stream], rows: Rows, row_tokens: int, limit: int
) -> list[Batch]:
    """This rank's micro-batches of at most ``limit`` samples, taken from all sources in turn, in their order.

    ``source`` (R,) is the place of each row's source in ``streams``, -1 of rows that fill up.
    """
    chosen: list[tuple[str, int]] = []
    for ordinal in range(limit):
        chosen += [(name, ordinal) for name, stream in streams.items() if ordinal < stream.source.samples]
    chosen = chosen[:limit]
    mine = [chosen[index] for index in context.share(len(chosen))]
    parts: Sequence[Any] = [streams[name].samples([index], rows.sample_tokens) for name, index in mine]
    tokens = np.concatenate(parts) if parts else np.empty((0, rows.sample_tokens + 1), np.int64)
    made = rows.micro(tokens, row_tokens, fullest(len(chosen), context.world))
    names = list(streams)
    sources_R = torch.tensor([names.index(name) for name, _ in mine], dtype=torch.int64)
    sources_R = sources_R.repeat_interleave(rows.sample_tokens // row_tokens)
    for index, batch in enumerate(made):
        height = len(batch["tokens"])
        part = sources_R[index * height : (index + 1) * height]
        batch["source"] = torch.cat((part, torch.full((height - len(part),), -1)))
    return made
