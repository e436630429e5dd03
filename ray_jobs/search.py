"""The search behind step `tune`: draws values, runs trials side by side on Ray Tune, stops those that fall behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from dataeng import storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from training import tune as sweep


def _space(space: sweep.Space) -> Any:
    """A key's values as Ray Tune draws them (for searches that choose trial by trial)."""
    from ray import tune

    if space.choices is not None:
        return tune.choice(space.choices)
    low, high = space.low or 0, space.high or 0
    if space.whole:
        return (tune.lograndint if space.log else tune.randint)(int(low), int(high) + 1)
    return (tune.loguniform if space.log else tune.uniform)(low, high)


def _check_room(config: sweep.Config) -> None:
    """Raise UserError where a cluster has no room for one trial: it would wait for ever."""
    import ray

    wanted = max(config.workers, 1) * config.cpus_per_worker
    there = ray.cluster_resources().get("CPU", 0)
    if wanted > there:
        raise UserError(
            f"tune: a trial asks for {wanted:g} CPUs, the cluster has {there:g}: lower workers or raise ray.cpus"
        )


def search(recipe: Recipe, config: sweep.Config, trial: Callable[..., None]) -> list[dict[str, Any]]:
    """Run all trials; their values, last metric, steps and error, in the order in which they were drawn."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    _check_room(config)
    root = recipe.root if storage.is_s3(recipe.root) else os.path.abspath(recipe.root)
    absolute = Recipe(recipe.path, root, recipe.seed, recipe.tables)
    own = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    resources = {"CPU": 0.01} if config.workers else {key: value for key, value in own.items() if value}
    runnable = tune.with_resources(tune.with_parameters(trial, recipe=absolute, config=config), resources)
    asha = ASHAScheduler("step", max_t=config.max_steps, grace_period=config.every, reduction_factor=config.reduction)
    drawn = {"values": tune.grid_search(sweep.draw(config.space, config.trials, recipe.seed))}
    by_optuna = config.search == "optuna"
    with tempfile.TemporaryDirectory(prefix="millrace-tune-") as folder:
        tuner = tune.Tuner(
            runnable,
            param_space={key: _space(space) for key, space in config.space.items()} if by_optuna else drawn,
            tune_config=tune.TuneConfig(
                metric=config.metric,
                mode=config.mode,
                search_alg=OptunaSearch(seed=recipe.seed) if by_optuna else None,
                scheduler=asha if config.halving else None,
                num_samples=config.trials if by_optuna else 1,
                max_concurrent_trials=config.concurrent,
                reuse_actors=not config.workers,
            ),
            run_config=tune.RunConfig(name="tune", storage_path=folder, verbose=0),
        )
        grid = tuner.fit()
        return [_result(grid[index], config) for index in range(len(grid))]


def _result(found: Any, config: sweep.Config) -> dict[str, Any]:
    metrics = found.metrics or {}
    values = found.config.get("values", found.config)
    error = " ".join(str(found.error).split())[-300:] if found.error else None
    facts = {"config": values, "metric": None if error else metrics.get(config.metric), "steps": metrics.get("step", 0)}
    return facts | {"seconds": round(metrics.get("time_total_s", 0.0), 2)} | ({"error": error} if error else {})
