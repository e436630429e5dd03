"""The loss on held-back rows, in all and by source; of any method on what it holds back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from training import pipeline
from training.context import Context
from training.likelihood import row_losses
from training.trainer import Batch, Loss, Validate


def validator(context: Context, held_back: Sequence[Batch], sources: Sequence[str]) -> Validate:
    """What measures the mean loss of a token of this rank's ``held_back`` rows (``stream.validation_rows``).

    Over all ranks: ``validation_loss``, its perplexity, and ``validation_loss/NAME`` for each source that has rows.
    """

    def validate(model: nn.Module) -> dict[str, float]:
        sums = torch.zeros(len(sources) + 1, 2, dtype=torch.float64)  # the last row is of what fills up
        for batch in held_back:
            moved = context.place(batch)
            if (logits_BLV := pipeline.logits(context, model, moved)) is None:
                continue
            found = row_losses(logits_BLV, moved["targets"])
            sums.index_add_(0, batch["source"] % len(sums), torch.stack([part.double().cpu() for part in found], 1))
        totals = context.total(pipeline.told(context, model, sums[:-1].flatten().tolist()))
        return _means(list(zip(totals[::2], totals[1::2], strict=True)), sources)

    return validate


def of_loss(context: Context, model: nn.Module, micro: Iterable[Batch], measure: Loss, metric: str) -> dict[str, float]:
    """What ``measure`` minimises and its logged ``metric``, each by its weight, on micro-batches of all ranks."""
    sums = [0.0, 0.0, 0.0]
    for batch in micro:
        total, weight, logged = measure(model, context.place(batch))
        sums = [a + float(b) for a, b in zip(sums, (total, weight, logged[metric]), strict=True)]
    total_loss, count, right = context.total(sums)
    return {"validation_loss": total_loss / count, f"validation_{metric}": right / count}


def _means(sums: Sequence[Sequence[float]], sources: Sequence[str]) -> dict[str, float]:
    loss, tokens = (sum(column) for column in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    if not tokens:
        return {}
    mean = loss / tokens
    whole = {"validation_loss": mean, "validation_perplexity": math.exp(min(mean, 700.0))}
    parts = zip(sources, sums, strict=True)
    return whole | {f"validation_loss/{name}": of_it / count for name, (of_it, count) in parts if count}
