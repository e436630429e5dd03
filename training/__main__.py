"""One training step without an engine: ``python -m training RECIPE NAME [KEY=VALUE …]``, also under torchrun."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta

from dataeng.cli import UserError, run
from dataeng.recipe import Recipe, load


def main(arguments: Sequence[str]) -> None:
    """Check the recipe, join the other ranks where torchrun started some, and run the step."""
    if len(arguments) < 2 or "=" in arguments[1]:
        raise UserError("usage: python -m training RECIPE NAME [KEY=VALUE …], or torchrun -m training …")
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // world)))
    recipe: Recipe = load([arguments[0], *arguments[2:]], ("dataeng.", "training."))
    name = arguments[1]
    from training import train

    train.check(recipe, [name], [world])
    import torch
    from torch import distributed as dist

    from training.context import Context, default_device

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if world > 1:
        seconds = recipe.step("train").engine_timeout_seconds
        backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    try:
        train.run_steps(recipe, [name], lambda r, n: Context.distributed(r, n, device=default_device(local)))
    finally:
        if world > 1:
            dist.destroy_process_group()


if __name__ == "__main__":
    run(main)
