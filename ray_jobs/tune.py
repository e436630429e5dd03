"""Step `tune`: short trials of a training step with other values, on Ray Tune; publishes which won."""

from __future__ import annotations

import logging
import os
import time

from dataeng import stage
from dataeng.recipe import Recipe
from ray_jobs import cluster
from training import train
from training import tune as sweep

log = logging.getLogger("millrace")


def step(recipe: Recipe, name: str = "tune") -> stage.Manifest:
    """Run the sweep and publish ROOT/NAME, or find it done."""
    sweep.check(recipe, name)
    config: sweep.Config = recipe.step(name)
    workers = [config.workers] if config.workers else []
    sweep.check_tried(recipe, name, lambda tried, target: train.check(tried, [target], workers))
    method = train.method(recipe, config.target)
    attempt = stage.begin(recipe, name, sweep.inputs(recipe, name, method.inputs(recipe, config.target)))
    if isinstance(attempt, stage.Manifest):
        return attempt
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": str(config.threads)}
    cluster.start(recipe)
    from ray_jobs.search import search
    from ray_jobs.trials import plain_trial, train_trial

    begun = time.monotonic()
    trials = search(recipe, config, train_trial if config.workers else plain_trial)
    manifest = sweep.publish(attempt, config, trials, time.monotonic() - begun)
    best = manifest.details["best"]
    log.info("%s: %s won: %s %.4f", name, sweep.words(best["config"]), config.metric, best["metric"])
    return manifest


if __name__ == "__main__":
    cluster.job(step, ("dataeng.", "training."))
