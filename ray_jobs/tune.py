"""Step `tune`: short trials of a training step with other values, on Ray Tune; publishes which won."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import suppress
from typing import Any

from dataeng import stage
from dataeng.recipe import Recipe
from ray_jobs import cluster
from training import train
from training import tune as sweep

log = logging.getLogger("millrace")


def run_target(recipe: Recipe, config: sweep.Config, values: dict[str, Any], send: Any, distributed: bool) -> None:
    """Train the target with a trial's values in a scratch folder; every report goes to ``send``."""
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
        context = Context.distributed(short, name, feed) if distributed else Context.single(short, name)
        context.report = sweep.listener(config, send)
        with suppress(sweep.TrialDone):
            train.method(short, name).run(context)
        context.barrier()  # the folder goes with rank 0


def plain_trial(values: dict[str, Any], recipe: Recipe, config: sweep.Config) -> None:
    """A trial that trains in its own process."""
    from ray import tune

    run_target(recipe, config, values.get("values", values), tune.report, False)


def worker(arguments: dict[str, Any]) -> None:
    """What each Ray Train worker of a trial does."""
    import ray.train

    run_target(**arguments, send=ray.train.report, distributed=ray.train.get_context().get_world_size() > 1)


def train_trial(values: dict[str, Any], recipe: Recipe, config: sweep.Config) -> None:
    """A trial that drives Ray Train workers, whose reports become its own."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    TorchTrainer(
        worker,
        train_loop_config={"recipe": recipe, "config": config, "values": values.get("values", values)},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={key: value for key, value in resources.items() if value},
        ),
        run_config=RunConfig(
            storage_path=tempfile.gettempdir(),
            callbacks=[TuneReportCallback()],  # type: ignore[list-item]
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(config.threads)}},  # type: ignore[call-arg]
        ),
    ).fit()


def step(recipe: Recipe, name: str = "tune") -> stage.Manifest:
    """Run the sweep and publish ROOT/NAME, or find it done."""
    sweep.check(recipe, name)
    config: sweep.Config = recipe.step(name)
    method = train.method(recipe, config.target)
    method.check(recipe, config.target, set())
    attempt = stage.begin(recipe, name, sweep.inputs(recipe, name, method.inputs(recipe, config.target)))
    if isinstance(attempt, stage.Manifest):
        return attempt
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": str(config.threads)}
    cluster.start(recipe)
    from ray_jobs.search import search

    begun = time.monotonic()
    trials = search(recipe, config, train_trial if config.workers else plain_trial)
    manifest = sweep.publish(attempt, config, trials, time.monotonic() - begun)
    best = manifest.details["best"]
    log.info("%s: %s won: %s %.4f", name, sweep.words(best["config"]), config.metric, best["metric"])
    return manifest


if __name__ == "__main__":
    cluster.job(step, ("dataeng.", "training."))
