"""The loop: accumulation, sharding, schedules, non-finite steps, batches without weight."""

import json
import math
import shutil

import pytest
import torch
from torch.nn import functional as F

from dataeng import stage
from tests.training.tools import publish_tokens, recipe_at
from training import optim, parallel, trainer
from training.context import Context
from training.data.stream import micro_batches
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

SHAPE = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=32)


def settings_of(**more):
    values = {"max_steps": 3, "batch": 8, "learning_rate": 1e-2, "precision": "fp32", "checkpoint_every": 1000}
    return TrainerConfig(**(values | more))


def context_of(tmp_path, settings):
    recipe = recipe_at(tmp_path)
    return Context(recipe, "pretrain", settings, checkpoint_fingerprint="test")


def model_of(context, settings):
    return parallel.build(context, lambda: Decoder(SHAPE, 50), settings, lambda made: init_weights(made, 0))


def unequal_rows(rows=8, length=17):
    """Rows of tokens whose targets count for 1 to 16 tokens, and where they do."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 50, (rows, length), generator=generator)
    targets = tokens[:, 1:].clone()
    for row in range(rows):
        targets[row, 1 + 2 * row :] = -100
    return tokens[:, :-1], targets


def steps_of(size):
    tokens, targets = unequal_rows()
    weight = float((targets != -100).sum())

    def batches(position):
        while True:
            micro = [
                {"tokens": tokens[at : at + size], "targets": targets[at : at + size]}
                for at in range(0, len(tokens), size)
            ]
            position += len(tokens)
            yield trainer.Step(micro, weight, position)

    return batches


def fitted(tmp_path, size, **more):
    settings = settings_of(**more)
    context = context_of(tmp_path, settings)
    model = model_of(context, settings)
    result = trainer.fit(context, model, steps_of(size), pretrain.loss_of(settings), settings)
    return {name: value.detach().clone() for name, value in model.named_parameters()}, result


def test_accumulation_changes_nothing_with_unequal_token_counts(tmp_path):
    whole, one = fitted(tmp_path / "1", 8)
    for size in (1, 3):
        parts, many = fitted(tmp_path / str(size + 1), size)
        assert many.metrics["loss"] == pytest.approx(one.metrics["loss"], abs=1e-6)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, atol=2e-5, rtol=1e-4)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
@pytest.mark.parametrize("how", [True, "model"])
def test_compiling_changes_nothing(tmp_path, how):
    whole, one = fitted(tmp_path / "1", 8)
    found, compiled = fitted(tmp_path / "2", 8, compile=how)
    assert compiled.metrics["loss"] == pytest.approx(one.metrics["loss"], abs=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)  # Adam's first steps magnify rounding


def test_the_gradient_is_that_of_the_mean_over_all_tokens(tmp_path):
    settings = settings_of(clip=0)
    context = context_of(tmp_path, settings)
    model, alone = model_of(context, settings), model_of(context, settings)
    run = trainer._Run(context, model, pretrain.loss, settings)
    step = next(steps_of(2)(0))
    run._backward(step)
    tokens, targets = unequal_rows()
    F.cross_entropy(alone(tokens).flatten(0, 1), targets.flatten(), ignore_index=-100).backward()
    for (name, mine), (_, other) in zip(model.named_parameters(), alone.named_parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_batch_without_weight_is_an_error(tmp_path):
    settings = settings_of()
    context = context_of(tmp_path, settings)
    tokens, targets = unequal_rows()
    batch = {"tokens": tokens, "targets": torch.full_like(targets, -100)}
    with pytest.raises(trainer.TrainingFailed, match="masked"):
        trainer.fit(
            context,
            model_of(context, settings),
            lambda p: iter([trainer.Step([batch], 0.0, 8)]),
            pretrain.loss,
            settings,
        )


def test_a_wrong_weight_is_an_error(tmp_path):
    settings = settings_of()
    context = context_of(tmp_path, settings)
    step = next(steps_of(8)(0))
    step.weight += 1
    with pytest.raises(trainer.TrainingFailed, match="said to weigh"):
        trainer.fit(context, model_of(context, settings), lambda p: iter([step]), pretrain.loss, settings)


def test_non_finite_steps_are_skipped_counted_and_limited(tmp_path):
    settings = settings_of(max_steps=4, nonfinite_limit=1)
    context = context_of(tmp_path, settings)
    model = model_of(context, settings)
    bad = iter([False, True, False, False])

    def loss(model, batch):
        total, weight, logged = pretrain.loss(model, batch)
        return (total * math.nan if next(bad) else total), weight, logged

    result = trainer.fit(context, model, steps_of(8), loss, settings)
    assert (result.step, result.skipped) == (4, 1)
    assert all(torch.isfinite(value).all() for value in model.parameters())
    bad = iter([True, True, False, False])
    with pytest.raises(trainer.TrainingFailed, match="nonfinite_limit"):
        trainer.fit(context_of(tmp_path / "b", settings), model, steps_of(8), loss, settings)


def test_only_matrices_decay():
    model = Decoder(SHAPE, 50)
    decayed, plain = optim.make(model, settings_of()).param_groups
    assert all(p.ndim == 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    assert plain["weight_decay"] == 0
    assert sum(p.numel() for group in (decayed, plain) for p in group["params"]) == SHAPE.parameters(50)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 0.5, 2: 1.0, 9: 1.0}),
        ("linear", {1: 1.0, 5: 0.55 + 0.05, 9: 0.2}),
        ("cosine", {1: 1.0, 9: 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 8 / 9))}),
        ("wsd", {1: 1.0, 8: 1.0, 9: 0.55}),
    ],
)
def test_schedules(schedule, expected):
    settings = settings_of(schedule=schedule, warmup=1, max_steps=10, learning_rate=1.0)
    assert settings.rate(0) == 0.5
    for step, rate in expected.items():
        assert settings.rate(step) == pytest.approx(rate), step


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_rates_before_extendable_until_do_not_depend_on_max_steps(schedule):
    short, long = (settings_of(schedule=schedule, warmup=3, max_steps=steps) for steps in (20, 45))
    until = int(min(short.extendable_until(), long.extendable_until(), 20))
    assert until >= 3
    assert [short.rate(step) for step in range(until)] == [long.rate(step) for step in range(until)]


def test_rows_that_fill_a_micro_batch_up_count_for_nothing():
    rows = torch.arange(5 * 9).reshape(5, 9)
    batches = micro_batches(rows, 2, 4)
    assert [tuple(batch["tokens"].shape) for batch in batches] == [(2, 8)] * 4
    assert [int((batch["targets"] != -100).sum()) for batch in batches] == [16, 16, 8, 0]


def test_speed_counts_no_rows_that_only_fill_up(tmp_path):
    recipe = recipe_at(tmp_path, batch=3, micro_batch=2, max_steps=2)
    publish_tokens(recipe)
    pretrain.run(Context.single(recipe, "pretrain"))
    rows = [json.loads(line) for line in (tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens_per_second"] * row["seconds"] for row in rows] == pytest.approx([3 * 32] * 2)
    assert "rows" not in rows[0]


def test_pretraining_publishes_once_and_leaves_one_row_a_step(tmp_path):
    recipe = recipe_at(tmp_path, validate_every=3)
    publish_tokens(recipe)
    pretrain.check(recipe, "pretrain")
    pretrain.run(Context.single(recipe, "pretrain"))
    manifest = stage.need_manifest(recipe.root, "pretrain", "test")
    rows = [json.loads(line) for line in (tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation_loss" in row] == [3, 6]
    vocabulary = stage.need_manifest(recipe.root, "tokens", "test").details["vocabulary"]
    assert rows[0]["loss"] == pytest.approx(math.log(vocabulary), abs=0.15)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert manifest.details["metrics"]["validation_loss"] == rows[-1]["validation_loss"]
    assert not stage.verify(recipe.root, "pretrain")
    assert list((tmp_path / "pretrain" / "tensorboard").iterdir())
    before = (tmp_path / "pretrain" / "manifest.json").read_bytes()
    pretrain.run(Context.single(recipe, "pretrain"))
    assert (tmp_path / "pretrain" / "manifest.json").read_bytes() == before
