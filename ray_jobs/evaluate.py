"""Step `evaluate`: every model made so far, several at a time, each in a process of its own."""

from __future__ import annotations

import logging
from typing import Any

from dataeng import stage
from dataeng.recipe import Recipe
from ray_jobs import cluster
from training import evaluate, posttrain, train
from training.context import Context

log = logging.getLogger("millrace")


def one_model(recipe: Recipe, name: str, model: str, items: list[dict[str, Any]], place: train.Config) -> Any:
    """What is said of a model, and its judged answers."""
    import torch

    from dataeng.cli import set_up_logging

    set_up_logging()
    torch.set_num_threads(place.worker_threads())
    return evaluate.evaluated(Context.single(recipe, name, cluster.device(place.gpus_per_worker, False)), model, items)


def step(recipe: Recipe, name: str = "evaluate") -> stage.Manifest:
    """Measure every model, as many at once as `train` has workers, and publish ROOT/NAME, or find it done."""
    evaluate.check(recipe, name)
    attempt = stage.begin(recipe, name, evaluate.inputs(recipe, name))
    if isinstance(attempt, stage.Manifest):
        return attempt
    config: evaluate.Config = recipe.step(name)
    place: train.Config = recipe.step("train")
    models = evaluate.made(recipe, name)
    items = posttrain.data_rows(recipe, name, config.tasks, "test") if config.tasks else []
    cluster.start(recipe)
    import ray

    remote = ray.remote(one_model).options(
        num_cpus=place.cpus_per_worker,
        num_gpus=place.gpus_per_worker,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": str(place.worker_threads())}},
    )
    waiting, found = list(models), {}
    running: dict[Any, str] = {}
    while waiting or running:
        while waiting and len(running) < place.most:
            model = waiting.pop(0)
            running[remote.remote(recipe, name, model, items, place)] = model
        for done in ray.wait(list(running))[0]:
            found[running.pop(done)] = ray.get(done)
    return evaluate.finish(attempt, config, {model: found[model] for model in models}, len(items))


if __name__ == "__main__":
    cluster.job(step, ("dataeng.", "training."))
