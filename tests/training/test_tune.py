"""The sweep without an engine: draws, trial recipes, what is refused, who wins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.recipe import Recipe, load
from training import tune
from training.context import Context
from training.methods import sft

RATE = {"low": 1e-3, "high": 1e-2, "log": True}


def recipe_of(tmp_path: Path, space: dict[str, Any], **more: Any) -> Recipe:
    tables = {"pretrain": {"max_steps": 300, "warmup": 30}, "tune": {"space": space, **more}}
    path = tmp_path / "sweep.toml"
    path.write_text('root = "runs/x"\nseed = 3\n')
    recipe = load([str(path)])
    return Recipe(recipe.path, recipe.root, recipe.seed, tables)


def sweep_of(space: dict[str, Any], **more: Any) -> tune.Config:
    return tune.Config.model_validate({"space": space, **more})


@given(st.integers(1, 40), st.integers(0, 99))
def test_draws_use_every_part_of_each_range_once(trials: int, seed: int) -> None:
    space = sweep_of({"pretrain.learning_rate": RATE, "pretrain.clip": {"low": 0.5, "high": 2.5}}).space
    draws = tune.draw(space, trials, seed)
    assert draws == tune.draw(space, trials, seed)
    rates = [math.log(one["pretrain.learning_rate"] / 1e-3) / math.log(10) for one in draws]
    clips = [(one["pretrain.clip"] - 0.5) / 2 for one in draws]
    for shares in (rates, clips):
        assert all(0 <= share <= 1 for share in shares)
        parts = sorted(share * trials for share in shares)
        assert all(number - 1e-3 <= part <= number + 1 + 1e-3 for number, part in enumerate(parts))


@given(st.integers(1, 50), st.integers(1, 50), st.booleans(), st.floats(0, 0.999999))
def test_whole_ranges_give_whole_numbers_within(low: int, more: int, log: bool, share: float) -> None:
    space = tune.Space(low=low, high=low + more, log=log)
    value = space.at(share)
    assert isinstance(value, int)
    assert low <= value <= low + more
    assert space.at(0.0) == low
    assert space.at(0.9999999999) == low + more


def test_a_trial_changes_its_values_and_nothing_else(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, {"pretrain.model.width": {"choices": [96, 192]}}, fixed={"pretrain.validation_samples": 8}
    )
    config = recipe.step("tune")
    short = tune.with_values(recipe, config, {"pretrain.model.width": 96}, "/scratch/trial")
    trial, before = short.step("/scratch/trial"), recipe.step("pretrain")
    assert (trial.model.width, trial.max_steps, trial.validation_samples) == (96, config.max_steps, 8)
    assert trial.warmup < trial.max_steps
    assert trial.learning_rate == before.learning_rate
    assert recipe.step("pretrain") == before  # the recipe itself is as it was
    assert short.kind("/scratch/trial") == "pretrain"


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"sft.learning_rate": RATE}, "begin with the target's name"),
        ({"pretrain.learning_rate": {"low": 1e-2, "high": 1e-3}}, "must be less than"),
        ({"pretrain.learning_rate": {"low": 0, "high": 1e-3, "log": True}}, "above 0"),
        ({"pretrain.learning_rate": {"low": 1}}, "either low and high, or choices"),
        ({"pretrain.learning_rate": {"low": -1e-3, "high": 1e-3}}, "learning_rate = -"),
        ({"pretrain.lerning_rate": RATE}, "unknown key"),
        ({"pretrain.schedule": {"choices": ["cosine", "zigzag"]}}, "zigzag"),
        ({"pretrain.model.width": {"choices": [100]}}, "multiple of heads"),
        ({}, "space"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(tmp_path: Path, space: dict[str, Any], words: str) -> None:
    recipe = recipe_of(tmp_path, space)
    with pytest.raises(UserError, match=words) as refused:
        tune.check(recipe, "tune")
    assert str(refused.value).startswith(recipe.path)
    assert "\n" not in str(refused.value)


def _trial(metric: float | None, steps: int, **more: Any) -> dict[str, Any]:
    return {"config": {"pretrain.learning_rate": metric}, "metric": metric, "steps": steps, **more}


def test_the_best_is_among_those_that_went_furthest() -> None:
    trials = [_trial(3.0, 10), _trial(5.0, 20), _trial(4.0, 20), _trial(None, 20, error="boom"), _trial(math.nan, 20)]
    config = sweep_of({"pretrain.learning_rate": RATE})
    assert tune.details(config, trials)["best"] == trials[2]
    upward = sweep_of({"pretrain.learning_rate": RATE}, mode="max")
    assert tune.details(upward, trials)["best"] == trials[1]
    with pytest.raises(RuntimeError, match="boom"):
        tune.details(config, trials[3:])


def test_a_trial_reports_evenly_and_ends_with_its_last_step() -> None:
    config = sweep_of({"pretrain.learning_rate": RATE}, max_steps=10, reports=2)
    seen: list[int] = []
    listen = tune.listener(config, lambda row: seen.append(row["step"]))
    for step in range(1, 10):
        listen({"step": step, "validation_loss": 1.0})
    with pytest.raises(tune.TrialDone):
        listen({"step": 10, "validation_loss": 1.0})
    assert seen == [5, 10]


def test_fingerprints_see_the_targets_settings(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"pretrain.learning_rate": RATE})
    other = Recipe(recipe.path, recipe.root, 3, recipe.tables | {"pretrain": {"batch": 3}})
    assert tune.inputs(recipe, "tune", []) != tune.inputs(other, "tune", [])
    assert json.dumps(tune.inputs(recipe, "tune", [])) == json.dumps(tune.inputs(recipe, "tune", []))


@pytest.mark.parametrize(
    ("space", "more", "words"),
    [
        ({"pretrain.max_steps": {"choices": [5]}}, {}, "a sweep sets that itself"),
        ({"pretrain.learning_rate": RATE}, {"fixed": {"pretrain.log_every": 1}}, "a sweep sets that itself"),
        ({"pretrain.warmup": {"choices": [10, 100]}}, {}, "warmup 100 must be less than max_steps 20"),
    ],
)
def test_values_that_would_not_be_tried_are_refused(
    tmp_path: Path, space: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        tune.check(recipe_of(tmp_path, space, **more), "tune")


def test_a_trial_validates_where_that_is_compared_and_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    space = {"pretrain.learning_rate": RATE}
    for metric, every in (("validation_loss", 10), ("loss", 0)):
        recipe = recipe_of(tmp_path, space, metric=metric)
        tried = tune.with_values(recipe, recipe.step("tune"), {})
        assert tried.step("pretrain").validate_every == every
    listen = tune.listener(sweep_of(space, metric="los"), print)
    listen({"step": 1, "loss": 2.0})
    with pytest.raises(UserError, match=r"tune\.metric = 'los': pretrain has step, loss"):
        listen({"step": 10, "loss": 2.0})


def test_trials_of_other_folders_see_data_in_the_same_order(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"pretrain.learning_rate": RATE})
    config = sft.Config(batch=4, max_steps=2)
    seen = []
    for folder in ("/tmp/a", "/tmp/b"):
        context = Context(recipe, f"{folder}/sft", config)
        seen.append(list(sft.batches(context, config, range(50), lambda some, position: (list(some), position), 0)))
    assert seen[0] == seen[1]
