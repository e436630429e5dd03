"""Several training steps, one after another, in the same workers: table `train`."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from dataeng import stage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, Table, home, runtime

if TYPE_CHECKING:
    from training.context import Context


Workers = Annotated[int, Field(ge=1)]


class Config(Table):
    """Which steps, and the workers that run them. Nothing here changes results."""

    steps: list[str] = runtime(["pretrain"], min_length=1, description="Tables of training steps, in order")
    workers: Workers | tuple[Workers, Workers] = runtime(
        1,
        description="Workers; each has its part of every model and batch. [1, 4]: as many as the cluster has room for",
    )
    cpus_per_worker: float = runtime(1.0, gt=0, description="Logical CPUs of a worker")
    gpus_per_worker: float = runtime(0.0, ge=0, description="GPUs of a worker")
    threads: int | None = runtime(None, ge=1, description="Threads of a worker; by default cores / workers")
    max_failures: int = runtime(2, ge=-1, description="Times that lost workers are replaced; -1 without end")
    max_preemption_failures: int = runtime(
        -1, ge=-1, description="The same for machines that were taken away after a notice"
    )
    start_timeout_seconds: float = runtime(300.0, gt=0, description="Wait for the workers to come up")
    collective_timeout_seconds: float = runtime(
        600.0, gt=0, description="Wait of one worker for the others; then all dump where they stand, and end"
    )

    @model_validator(mode="after")
    def _ascends(self) -> Config:
        if self.fewest > self.most:
            raise ValueError(f"workers = [{self.fewest}, {self.most}]: the first must not be the greater")
        return self

    @property
    def fewest(self) -> int:
        """Workers without which nothing starts."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most(self) -> int:
        """Workers at most."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]

    @property
    def engine_timeout_seconds(self) -> float:
        """The limit of torch's own collectives: behind ours, which says more."""
        return self.collective_timeout_seconds * 1.5 + 30

    def worker_threads(self) -> int:
        """Threads of a worker: their sum is at most the cores of this machine."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.most)


def method(recipe: Recipe, name: str) -> ModuleType:
    """The module of the method that a table configures; raises UserError where it is none."""
    where = home(recipe.kind(name)) or ""
    if not where.startswith("training.methods."):
        raise UserError(f"{recipe.path}: train.steps: {name!r} is no training step")
    return importlib.import_module(where)


def check(recipe: Recipe, names: Sequence[str], workers: Sequence[int] = ()) -> None:
    """Raise UserError for the first thing that would keep one of the steps from running on so many workers."""
    coming: set[str] = set()
    for name in names:
        method(recipe, name)
        config = recipe.need(name)
        for count in workers:
            config.mesh.shape(count, name)
            if recipe.kind(name) in ("ppo", "grpo") and config.batch < count:
                raise UserError(f"{recipe.path}: {name}.batch = {config.batch}: {count} workers need a prompt each")
        if recipe.kind(name) != "pretrain" and config.mesh.tensor * config.mesh.context * config.mesh.pipeline > 1:
            raise UserError(f"{recipe.path}: {name}.mesh: only pretraining splits tensors, rows or blocks over workers")
        if config.compile and config.mesh.tensor > 1:
            raise UserError(f"{recipe.path}: {name}.compile: split tensors (mesh.tensor) are not compiled: set false")
        _check_precision(recipe, name)
        method(recipe, name).check(recipe, name, coming)
        coming.add(name)


def _check_precision(recipe: Recipe, name: str) -> None:
    config = recipe.need(name)
    if config.precision == "float8":  # torch is imported for it alone
        from training import float8

        float8.check(recipe, name, config)


def pending(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """The steps that are not published yet, from the first of them on (what they make changes later inputs)."""
    for index, name in enumerate(names):
        if isinstance(stage.begin(recipe, name, method(recipe, name).inputs(recipe, name)), stage.Attempt):
            return list(names[index:])
    return []


def run_steps(recipe: Recipe, names: Sequence[str], make_context: Callable[[Recipe, str], Context]) -> None:
    """Run the steps one after another in this process (each rank of a group calls it alike)."""
    for name in names:
        method(recipe, name).run(make_context(recipe, name))
        gc.collect()
