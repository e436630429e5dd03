"""Our trainer as the benchmarks of its speed run it: a decoder, batches from memory, and the time of each step."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dataeng.recipe import Recipe, override
from training import parallel, trainer
from training.context import Context, default_device
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

Batch = dict[str, Tensor]


def settings_of(named: Mapping[str, str]) -> dict[str, Any]:
    """Settings given as KEY=VALUE, read as a recipe's overrides are."""
    found: dict[str, Any] = {}
    for key, text in named.items():
        override(found, f"{key}={text}")
    return found


def random_batches(rows: int, length: int, vocabulary: int, seed: int = 0) -> Iterator[Batch]:
    """Rows of random tokens without end, the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield next_tokens(torch.randint(0, vocabulary, (rows, length + 1), generator=generator))


def next_tokens(rows: Tensor) -> Batch:
    """Inputs (R, L) and what follows each, of rows (R, L + 1)."""
    return {"tokens": rows[:, :-1], "targets": rows[:, 1:]}


def step_seconds(
    shape: ModelConfig,
    vocabulary: int,
    settings: TrainerConfig,
    batches: Iterable[Batch],
    seed: int = 0,
    processes: int = 1,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    ended: Callable[[dict[str, float]], None] = lambda _row: None,
) -> list[float]:
    """Run ``settings.max_steps`` steps through the whole trainer; the seconds of each.

    ``batches`` are this process's micro-batches, all of one size. With several ``processes`` torch.distributed must
    be up. ``ended`` gets each step's metrics.
    """
    with tempfile.TemporaryDirectory() as root:
        recipe = Recipe("", root, seed, {"pretrain": {"mesh": settings.mesh.model_dump()}, "train": {}})
        if processes > 1:
            context = Context.distributed(
                recipe, "pretrain", device=default_device(int(os.environ.get("LOCAL_RANK", "0")))
            )
        else:
            context = Context.single(recipe, "pretrain")
        context.config, context.checkpoint_fingerprint = settings, "benchmark"
        model = parallel.build(context, lambda: Decoder(shape, vocabulary), settings, lambda m: init_weights(m, seed))
        ends = [time.perf_counter()]

        def report(row: dict[str, float]) -> None:
            ended(row)
            ends.append(time.perf_counter())

        context.report = report
        each = settings.batch // (settings.micro_batch * context.world)

        def steps(position: int) -> Iterator[trainer.Step]:
            source = iter(batches)
            while True:
                micro = [next(source) for _ in range(each)]
                position += settings.batch
                weight = context.world * sum(batch["targets"].numel() for batch in micro)
                yield trainer.Step(micro, float(weight), position)

        trainer.fit(context, model, steps, pretrain.loss_of(settings), settings, validate)
    return [end - begin for begin, end in pairwise(ends)]
