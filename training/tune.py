"""Step ``tune``: what is searched, drawn and reported. No torch and no engine here."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from dataeng import stage, storage
from dataeng.cli import Stopped, UserError
from dataeng.document import digest
from dataeng.recipe import Recipe, Table, runtime


class TrialDone(Stopped):
    """Raised out of the training loop after a trial's last report: its model is not wanted."""


_OWN = ("step", "max_steps", "validate_every", "checkpoint_every", "log_every")  # of a trial's table


class Space(Table):
    """The values of one key: a range, or choices."""

    low: int | float | None = Field(None, description="Least value; two whole numbers make a range of whole numbers")
    high: int | float | None = Field(None, description="Greatest value")
    log: bool = Field(False, description="Draw evenly by order of magnitude")
    choices: list[Any] | None = Field(None, min_length=1, description="Instead of a range: the values to choose from")

    @model_validator(mode="after")
    def _makes_sense(self) -> Space:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None):
            raise ValueError("needs either low and high, or choices")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low = {self.low} must be less than high = {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"low = {self.low} must be above 0 where log = true")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Any:
        """The value at ``share`` (0 to 1, below 1) of the way through the range or the choices."""
        if self.choices is not None:
            return self.choices[int(share * len(self.choices))]
        low, high = self.low or 0, self.high or 0
        if self.whole:
            high = high + 1
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(math.floor(value), high - 1) if self.whole else float(f"{value:.6g}")

    def ends(self) -> list[Any]:
        """The values that tell whether the whole range is allowed."""
        return list(self.choices) if self.choices is not None else [self.low, self.high]


class Config(Table):
    """Table ``tune``."""

    version: ClassVar[int] = 1

    target: str = Field("pretrain", description="The training table that is tried with other values")
    space: dict[str, Space] = Field(min_length=1, description='Values by dotted key, such as "pretrain.learning_rate"')
    fixed: dict[str, Any] = Field({}, description="Values by dotted key that every trial has instead of the recipe's")
    trials: int = Field(4, ge=1, description="Trials in all")
    max_steps: int = Field(20, ge=2, description="Optimiser steps of a trial, and the length of its schedule")
    reports: int = Field(2, ge=1, description="Times that a trial reports its metric, evenly over its steps")
    search: Literal["random", "optuna"] = Field(
        "random", description="random: a Latin hypercube (doi:10.2307/1268522); optuna: its TPE, trial by trial"
    )
    metric: str = Field("validation_loss", description="What is compared, a column of metrics.jsonl")
    mode: Literal["min", "max"] = Field("min", description="Whether less or more of it is better")
    halving: bool = Field(True, description="Stop trials that fall behind early (ASHA, arXiv:1810.05934)")
    reduction: int = Field(2, ge=2, description="ASHA keeps one in this many at each rung")
    concurrent: int = runtime(2, ge=1, description="Trials at a time")
    workers: int = runtime(0, ge=0, description="Ray Train workers of a trial; 0: the trial's own process trains")
    threads: int = runtime(1, ge=1, description="Threads of a process that trains")
    cpus_per_worker: float = runtime(1.0, gt=0, description="Logical CPUs of a trial's process, or of each worker")
    gpus_per_worker: float = runtime(0.0, ge=0, description="GPUs of a trial's process, or of each worker")

    @model_validator(mode="after")
    def _belongs_to_target(self) -> Config:
        for key in (*self.space, *self.fixed):
            if not key.startswith(f"{self.target}.") or not all(key.split(".")):
                raise ValueError(
                    f"{key!r}: keys of space and fixed begin with the target's name, such as {self.target}.seed"
                )
            if key.split(".")[1] in _OWN:
                raise ValueError(f"{key!r}: a sweep sets that itself: tune.max_steps and tune.reports say how long")
        return self

    @property
    def every(self) -> int:
        """Steps between two reports of a trial."""
        return max(1, self.max_steps // self.reports)


def draw(space: Mapping[str, Space], trials: int, seed: int) -> list[dict[str, Any]]:
    """``trials`` settings of a Latin hypercube: each key's range is cut into ``trials`` parts, each used once."""
    columns = {}
    for key in sorted(space):
        rng = random.Random(f"{seed}/{key}")
        parts = rng.sample(range(trials), trials)
        columns[key] = [space[key].at((part + rng.random()) / trials) for part in parts]
    return [{key: values[index] for key, values in columns.items()} for index in range(trials)]


def with_values(recipe: Recipe, config: Config, values: Mapping[str, Any], folder: str | None = None) -> Recipe:
    """The recipe with a trial's values in its target, and short.

    With ``folder`` the trial's table stands under that name, so that the step publishes there and reads
    everything else where the recipe says.
    """
    table = json.loads(json.dumps(recipe.tables.get(config.target, {})))
    table["warmup"] = min(table.get("warmup", 0), config.max_steps // 4)  # where no value of the trial says another
    for key, value in (config.fixed | dict(values)).items():
        *path, last = key.split(".")[1:]
        inner = table
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    table |= {"step": recipe.kind(config.target), "max_steps": config.max_steps}
    table |= {"validate_every": config.every if config.metric.startswith("validation") else 0, "keep_best": 0}
    table |= {"checkpoint_every": config.max_steps, "log_every": config.max_steps}
    return Recipe(recipe.path, recipe.root, recipe.seed, recipe.tables | {folder or config.target: table})


def check(recipe: Recipe, name: str) -> None:
    """Raise UserError where the target is missing, or a value of the space is not allowed for it."""
    recipe.need(recipe.need(name).target)
    check_tried(recipe, name, lambda tried, target: tried.step(target))


def check_tried(recipe: Recipe, name: str, check_one: Callable[[Recipe, str], object]) -> None:
    """Call ``check_one(recipe, target)`` for what will be tried, as far as that is known already; its UserErrors get
    the name of the space."""
    config: Config = recipe.step(name)
    ends = [{key: value} for key, space in config.space.items() for value in space.ends()]
    drawn = draw(config.space, config.trials, recipe.seed) if config.search == "random" else []
    for values in drawn or ends:
        try:
            check_one(with_values(recipe, config, values), config.target)
        except UserError as error:
            raise UserError(f"{recipe.path}: {name}.space: {str(error).removeprefix(recipe.path + ': ')}") from None


def inputs(recipe: Recipe, name: str, of_target: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the sweep's results follow from: the target's inputs and its own settings."""
    config: Config = recipe.step(name)
    settings = with_values(recipe, config, {}).step(config.target).results()
    return [*of_target, {"table": config.target, "hash": digest(json.dumps(settings, sort_keys=True))}]


def is_report(config: Config, row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics is one that a trial reports; raises UserError where it lacks the metric."""
    due: bool = row["step"] % config.every == 0 or row["step"] == config.max_steps
    if due and config.metric not in row:
        raise UserError(f"tune.metric = {config.metric!r}: {config.target} has {', '.join(map(str, row))}")
    return due


def listener(config: Config, send: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    """What a trial's loop tells its rows to: those that are reports go on, the last one ends the trial."""

    def listen(row: dict[str, Any]) -> None:
        if is_report(config, row):
            send(row)
        if row["step"] >= config.max_steps:
            raise TrialDone

    return listen


def details(config: Config, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The manifest's details; ``trials`` have ``config``, ``metric`` (None: failed), ``steps``, ``error``.

    The best is the best last value among the trials that went furthest: a trial stopped early is
    compared at fewer steps and does not win. Raises RuntimeError where every trial failed.
    """
    done = [trial for trial in trials if trial["metric"] is not None and math.isfinite(trial["metric"])]
    if not done:
        errors = {trial["error"] for trial in trials if trial.get("error")}
        raise RuntimeError(f"every trial failed: {'; '.join(sorted(errors)) or 'none reported ' + config.metric}")
    furthest = max(trial["steps"] for trial in done)
    sign = 1 if config.mode == "min" else -1
    best = min((trial for trial in done if trial["steps"] == furthest), key=lambda trial: sign * trial["metric"])
    facts = {"target": config.target, "metric": config.metric, "mode": config.mode, "search": config.search}
    return facts | {"max_steps": config.max_steps, "trials": list(trials), "best": best}


def publish(attempt: stage.Attempt, config: Config, trials: Sequence[dict[str, Any]], seconds: float) -> stage.Manifest:
    """Publish ROOT/NAME: the trials and the winner; ``seconds`` is what the search itself took."""
    found = details(config, trials) | {"search_seconds": round(seconds, 3)}
    counts = {"trials": len(trials), "stopped": sum(t["steps"] < config.max_steps for t in trials if t["metric"])}
    lines = "".join(json.dumps(trial) + "\n" for trial in trials)
    path = storage.join(attempt.data_folder, "trials.jsonl")
    storage.write_bytes(path, lines.encode())
    tables = {"trials": stage.file_table(attempt.folder, [path])}
    return attempt.publish(attempt.manifest(tables=tables, counts=counts, details=found))


def words(values: Mapping[str, Any]) -> str:
    """A trial's values in one line."""
    return ", ".join(
        f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}" for key, value in values.items()
    )
