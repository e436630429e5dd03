import json
from pathlib import Path

import pytest

from dataeng import stage
from dataeng.cli import UserError
from training import evaluate
from training.context import Context
from training.methods import reward, sft


def run(recipe, **more):
    context = Context.single(recipe, "evaluate")
    evaluate.check(recipe, "evaluate")
    evaluate.run(context)
    return stage.need_manifest(recipe.root, "evaluate", "test")


def test_every_decoder_that_is_made_is_measured_and_compared(root):
    plain = {"tokens": None, "precision": "fp32", "new_tokens": 8, "samples": 2}
    recipe = root(sft={"learning_rate": 1e-2}, reward={"max_steps": 1}, grpo={}, evaluate=plain)
    sft.run(Context.single(recipe, "sft"))
    reward.run(Context.single(recipe, "reward"))
    assert evaluate.made(recipe, "evaluate") == ["pretrain", "sft"]
    manifest = run(recipe)
    models = manifest.details["models"]
    assert list(models) == ["pretrain", "sft"]
    assert set(models["sft"]["tasks"]["greedy"]["by_kind"]) == {"copy", "reverse", "upper", "count", "compare", "sum"}
    assert set(models["pretrain"]["difference"]) == {"greedy", "sampled"}
    assert len(models["sft"]["samples"]) == 24
    [file] = manifest.tables["answers"].files
    rows = [json.loads(line) for line in Path(recipe.root, "evaluate", file.path).read_text().splitlines()]
    assert len(rows) == 2 * 24 == manifest.tables["answers"].rows
    assert all(len(row["sampled"]) == 2 for row in rows)
    assert run(recipe).attempt == manifest.attempt


def test_the_number_of_workers_and_prompts_at_once_change_no_answer(root):
    from training import posttrain
    from training.evaluate.answers import answer

    recipe = root(evaluate={"tokens": None, "precision": "fp32", "models": ["pretrain"], "new_tokens": 8})
    context = Context.single(recipe, "evaluate")
    begin = posttrain.start(context, "pretrain")
    model = posttrain.frozen(context, begin.decoder, context.config.settings(), begin.state)
    items = posttrain.data_rows(recipe, "evaluate", "tasks", "test")
    whole = answer(context, model, begin, items)
    context.config = context.config.model_copy(update={"prompts": 5})
    assert answer(context, model, begin, items) == whole


def test_no_tasks_are_none_and_rows_fit_the_model(root):
    recipe = root(evaluate={"tokens": None, "tasks": "", "models": ["pretrain"], "precision": "fp32"})
    assert "tasks" not in run(recipe).details["models"]["pretrain"] or not run(recipe).counts["answers"]
    assert [evaluate.row_width(1024, longest) for longest in (2048, 1024, 1000, 128)] == [1024, 1024, 512, 128]


def test_a_root_without_models_is_named(root):
    recipe = root(evaluate={"tokens": None, "models": ["sft"]})
    with pytest.raises(UserError, match="sft has not been published"):
        evaluate.check(recipe, "evaluate")
