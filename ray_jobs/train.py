"""Runs the recipe's training steps (`train.steps`) one after another in one group of Ray Train workers."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from typing import Any

from dataeng.cli import Stopped
from dataeng.recipe import Recipe
from ray_jobs import cluster, notices
from training import train

log = logging.getLogger("millrace")


def worker(arguments: dict[str, Any]) -> None:
    """What every worker does: its steps, over the process group that Ray Train set up."""
    import torch

    from dataeng.cli import set_up_logging
    from ray_jobs.feed import feed
    from training.context import Context

    set_up_logging()
    torch.set_num_threads(arguments["threads"])

    def make_context(recipe: Recipe, name: str) -> Context:
        context = Context.distributed(recipe, name, feed, cluster.device(recipe.step("train").gpus_per_worker, True))
        if context.device.type == "cpu" and torch.cuda.is_available():
            context.log("there are GPUs here; train.gpus_per_worker = 1 has each worker take one")
        context.notice = notices.notice(context, arguments["wishes"])
        return context

    # Stopped: the driver asked for it, and says so; a failure would be started again.
    with suppress(Stopped), notices.told(arguments["wishes"]) as all_well:
        if all_well:
            train.run_steps(arguments["recipe"], arguments["steps"], make_context)


def fit(recipe: Recipe, steps: list[str], config: train.Config) -> None:
    """Start the workers, and replace lost ones; the loop itself finds the newest whole checkpoint.

    Raises Stopped where SIGTERM came to the driver, once the workers have saved.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(config.start_timeout_seconds))
    cluster.start(recipe)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    threads = config.worker_threads()
    retries = {"max_failures": config.max_failures, "max_preemption_failures": config.max_preemption_failures}
    with tempfile.TemporaryDirectory(prefix="millrace-train-") as folder, notices.relay() as relay:
        trainer = TorchTrainer(
            worker,
            train_loop_config={"recipe": recipe, "steps": steps, "threads": threads, "wishes": relay.wishes},
            torch_config=TorchConfig(timeout_s=int(config.engine_timeout_seconds)),
            scaling_config=ScalingConfig(
                num_workers=config.workers,  # type: ignore[arg-type]  # the types of Ray Train V1 are found
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={key: value for key, value in resources.items() if value},
            ),
            run_config=RunConfig(  # type: ignore[call-arg]
                name="train",
                storage_path=folder,
                failure_config=FailureConfig(**retries),  # type: ignore[arg-type]
            ),
        )
        try:
            trainer.fit()
        except Exception:
            notices.raise_told(relay.wishes, failed=True)
            raise
        notices.raise_told(relay.wishes, failed=False)
        if relay.asked.is_set():
            raise Stopped("train: stopped by SIGTERM, what it had learned was saved; run it again to go on")


def step(recipe: Recipe) -> None:
    """Check everything, then run the steps that are not published yet."""
    config: train.Config = recipe.step("train")
    train.check(recipe, config.steps, range(config.fewest, config.most + 1))
    steps = train.pending(recipe, config.steps)
    if steps:
        fit(recipe, steps, config)


if __name__ == "__main__":
    cluster.job(step, ("dataeng.", "training."))
