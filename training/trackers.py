"""Weights & Biases and MLflow, where the environment is set for them: the rows of metrics go there as well.

WANDB_API_KEY or WANDB_MODE, MLFLOW_TRACKING_URI. A run goes by its checkpoints' fingerprint, so a resumed one goes on.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from typing import Any

from dataeng.cli import Unreachable, one_line
from training.context import Context

Send = Callable[[dict[str, float], int], None]
_NOT_MLFLOWS = re.compile(r"[^\w./ :-]", re.ASCII)  # what names of its metrics must not hold (sources' may)
_WANTED = {"wandb": ("WANDB_API_KEY", "WANDB_MODE"), "mlflow": ("MLFLOW_TRACKING_URI",)}


class Trackers:
    """The services that are set up; nothing on processes other than the first."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.ends: dict[str, Callable[[], Any]] = {}
        self.sends: dict[str, Send] = {}
        for package, variables in _WANTED.items() if context.first else ():
            if not any(os.environ.get(variable) for variable in variables):
                continue
            if importlib.util.find_spec(package) is None:
                context.log("%s is set, but the package %s is not installed", " or ".join(variables), package)
                continue
            try:
                send, end = (_wandb if package == "wandb" else _mlflow)(context)
            except Exception as error:
                raise Unreachable(f"{package}, set up by {' or '.join(variables)}: {one_line(error)}") from error
            self.sends[package], self.ends[package] = send, end

    def write(self, row: dict[str, Any]) -> None:
        """One step's row."""
        numbers = {key: float(value) for key, value in row.items() if isinstance(value, int | float) and key != "step"}
        for package, send in list(self.sends.items()):
            try:
                send(numbers, row["step"])
            except Exception as error:  # noqa: BLE001 — training goes on: metrics.jsonl has the row
                del self.sends[package]
                self.context.log("%s takes no more rows from step %d on: %s", package, row["step"], one_line(error))

    def close(self) -> None:
        """Hand over what waits."""
        for package, end in self.ends.items():
            try:
                end()
            except Exception as error:  # noqa: BLE001 — there is nothing more to lose
                self.context.log("%s could not be closed: %s", package, one_line(error))


def _parts(context: Context) -> tuple[str, dict[str, Any]]:
    return f"{context.title}-{context.checkpoint_fingerprint[:16]}", context.config.model_dump(mode="json")


def _wandb(context: Context) -> tuple[Send, Callable[[], Any]]:
    import wandb

    name, config = _parts(context)
    project = os.environ.get("WANDB_PROJECT", "millrace")
    run = wandb.init(project=project, id=name, name=name, resume="allow", config=config | {"root": context.recipe.root})
    return (lambda row, step: run.log(row, step=step)), run.finish


def _mlflow(context: Context) -> tuple[Send, Callable[[], Any]]:
    import mlflow

    name, config = _parts(context)
    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "millrace"))
    known = mlflow.search_runs(filter_string=f"attributes.run_name = '{name}'", output_format="list", max_results=1)
    mlflow.start_run(run_id=known[0].info.run_id if known else None, run_name=name)
    if not known:
        mlflow.log_params({key: str(value)[:500] for key, value in config.items()})

    def send(row: dict[str, float], step: int) -> None:
        mlflow.log_metrics({_NOT_MLFLOWS.sub("_", key): value for key, value in row.items()}, step=step)

    return send, mlflow.end_run
