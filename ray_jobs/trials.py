"""One trial of step `tune`: in its own process, or driving Ray Train workers."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from typing import Any

from dataeng.recipe import Recipe
from ray_jobs import cluster
from training import train
from training import tune as sweep


def run_target(
    recipe: Recipe, config: sweep.Config, values: dict[str, Any], send: Any, of_train: bool, distributed: bool
) -> None:
    """Train the target with a trial's values in a scratch folder; every report goes to ``send``.

    ``of_train``: in a worker of Ray Train, ``distributed``: one of several.
    """
    import torch

    from ray_jobs.feed import feed
    from training.context import Context

    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="millrace-trial-") as folder:
        name = f"{folder}/{config.target}"
        if distributed:  # all ranks write to one place: rank 0's
            box = [name]
            torch.distributed.broadcast_object_list(box, src=0)
            name = box[0]
        short = sweep.with_values(recipe, config, values, name)
        device = cluster.device(config.gpus_per_worker, of_train)
        context = Context.distributed(short, name, feed, device) if distributed else Context.single(short, name, device)
        context.report = sweep.listener(config, send)
        with suppress(sweep.TrialDone):
            train.method(short, name).run(context)
        context.barrier()  # the folder goes with rank 0


def plain_trial(values: dict[str, Any], recipe: Recipe, config: sweep.Config) -> None:
    """A trial that trains in its own process."""
    from ray import tune

    run_target(recipe, config, values.get("values", values), tune.report, False, False)


def worker(arguments: dict[str, Any]) -> None:
    """What each Ray Train worker of a trial does."""
    import ray.train

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    distributed = ray.train.get_context().get_world_size() > 1
    run_target(**arguments, send=ray.train.report, of_train=True, distributed=distributed)


def train_trial(values: dict[str, Any], recipe: Recipe, config: sweep.Config) -> None:
    """A trial that drives Ray Train workers, whose reports become its own."""
    place: train.Config = recipe.step("train")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(place.start_timeout_seconds))
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    logging.getLogger("ray.train").setLevel(logging.WARNING)
    resources = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    with tempfile.TemporaryDirectory(prefix="millrace-tune-") as folder:
        TorchTrainer(
            worker,
            train_loop_config={"recipe": recipe, "config": config, "values": values.get("values", values)},
            torch_config=TorchConfig(timeout_s=int(place.engine_timeout_seconds)),
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={key: value for key, value in resources.items() if value},
            ),
            run_config=RunConfig(
                storage_path=folder,
                callbacks=[TuneReportCallback()],  # type: ignore[list-item]
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(config.threads)}},  # type: ignore[call-arg]
            ),
        ).fit()
