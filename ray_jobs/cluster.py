"""Joins the recipe's Ray cluster, or starts a local one, for as long as a job needs it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from dataeng.recipe import Recipe, main_with_recipe

if TYPE_CHECKING:
    import torch

log = logging.getLogger("millrace")
# Ray reads these when it is imported, in the driver and in all that a local cluster starts.
_TRIES = 3
_QUIET = {
    "RAY_AUTH_MODE": "token",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TQDM": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a recipe mean the same in the driver and its workers
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def logical_cpus(recipe: Recipe) -> int:
    """Logical CPUs of a local cluster: workers must leave some to the tasks that feed them."""
    asked: int | None = recipe.step("ray").cpus
    return asked or max(4, os.cpu_count() or 1)


def start(recipe: Recipe) -> None:
    """Join or start a cluster, once; the first use costs some seconds."""
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    import ray

    if ray.is_initialized():
        return
    settings = recipe.step("ray")
    if settings.address or os.environ.get("RAY_ADDRESS"):
        ray.init(address=settings.address, logging_level=logging.WARNING, log_to_driver=True)
    else:
        log.info("ray: starting a local cluster of %d logical CPUs", logical_cpus(recipe))
        _start_local(logical_cpus(recipe), settings.object_store_bytes)
    quiet_data()


def _start_local(cpus: int, object_store_bytes: int) -> None:
    """Start a local cluster; Ray waits 30 seconds for its own processes, which a busy machine can exceed."""
    # A watcher that asks whether the nodes are taken away: this one is not, and workers wait for its process.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    import ray

    for left in reversed(range(_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=object_store_bytes,
                include_dashboard=False,
                logging_level=logging.WARNING,
                logging_config=ray.LoggingConfig(log_level="ERROR"),
                log_to_driver=True,
            )
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or not left:
                raise
            log.info("ray: this machine is busy and the cluster did not come up in time; trying again")
            ray.shutdown()


def device(gpus: float, of_train: bool) -> torch.device:
    """Where a process computes that asked for so many GPUs: the one it got of Ray (``of_train``: of Ray Train, which
    shows a node's GPUs to all its workers), or the CPU, also where Ray hides no GPU from it."""
    import torch

    if not gpus:
        return torch.device("cpu")
    if not of_train:
        return torch.device("cuda", 0)  # the only one that it sees
    from ray.train.torch import get_device

    return get_device()


def quiet_data() -> None:
    """No progress bars or plans of Ray Data in the log; in this process."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def stop() -> None:
    """Leave the cluster; a local one ends."""
    import sys

    if "ray" in sys.modules:
        import ray

        if ray.is_initialized():
            ray.shutdown()


def job(main: Callable[[Recipe], object], homes: tuple[str, ...] = ("dataeng.",)) -> None:
    """Run a job on the command's recipe with the house's exit statuses; the cluster ends with it."""

    def run(recipe: Recipe) -> None:
        try:
            main(recipe)
        finally:
            stop()

    main_with_recipe(run, homes)
