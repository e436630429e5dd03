import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataeng import stage
from dataeng.cli import UserError
from training import posttrain, rollouts, train
from training.context import Context
from training.methods import grpo
from training.rollouts import Prompt
from training.trainer import TrainingFailed


def test_advantages_of_a_group():
    found, live = grpo.advantages(torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1], [2, 0, 0, 0]]))
    assert found[0].tolist() == pytest.approx([0.866025, -0.866025, -0.866025, 0.866025], abs=2e-6)
    assert found[1].tolist() == found[2].tolist() == [0, 0, 0, 0]
    assert found[3].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=5e-6)
    assert live.tolist() == [True, False, False, True]
    assert grpo.advantages(torch.tensor([[1.0], [0.0]]))[1].tolist() == [False, False]


@pytest.fixture
def actors(root):
    """Policy and reference of a tiny model, with what they need to answer prompts."""
    recipe = root(grpo={"model": "pretrain", "batch": 4, "samples": 4, "new_tokens": 6})
    context = Context.single(recipe, "grpo")
    begin = posttrain.start(context, "pretrain")
    policy = posttrain.filled(context, begin.decoder, context.config, begin.state)
    return grpo.actors_of(context, context.config, begin, policy)


def judged_rows(actors):
    actors.sampling = replace(actors.sampling, stops=tuple(range(150)))  # so that answers end here and there
    prompts = [Prompt([10, 20, 30 + n], "x") for n in range(4)]
    judged = actors.judged(prompts, range(4), 0)
    rewards = torch.tensor([1.0, 0, 0, 1] + [0.0] * 4 + [1, 1, 0, 1] + [1] * 4)
    advantages, live = grpo.advantages(rewards.view(4, 4))
    rows = rollouts.experience_rows(judged) | {"advantages": advantages.flatten()}
    return rows, live.repeat_interleave(4)


def test_the_first_ratio_is_one_and_the_reference_is_near(actors):
    rows, _ = judged_rows(actors)
    found = grpo.answer_likelihood(actors.policy, rows, 1.0)
    torch.testing.assert_close(found[rows["mask"]], rows["old"][rows["mask"]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows["reference"], rows["old"], atol=1e-5, rtol=1e-5)


def test_groups_without_spread_and_padding_take_no_part(actors):
    rows, live = judged_rows(actors)
    config = actors.config.model_copy(update={"micro_batch": 3, "minibatches": 1})
    [step] = grpo.rollout_steps(actors.context, config, rows, live, 9)
    assert (step.weight, step.position, step.bound) == (float(rows["mask"][live].sum()), 9, True)
    assert sum(float(batch["mask"].sum()) for batch in step.micro) == step.weight
    loss = grpo.make_loss(config)
    total = sum(loss(actors.policy, batch)[0] for batch in step.micro)
    wanted = loss(actors.policy, {name: value[live] for name, value in rows.items()})[0]
    torch.testing.assert_close(total, wanted, atol=1e-5, rtol=1e-5)


def test_changing_padding_changes_nothing_and_nan_neither(actors):
    rows, live = judged_rows(actors)
    rows = {name: value[live] for name, value in rows.items()}
    loss = grpo.make_loss(actors.config)

    def measured(batch):
        actors.policy.zero_grad()
        total = loss(actors.policy, batch)[0]
        total.backward()
        return [total.detach(), *(parameter.grad.clone() for parameter in actors.policy.parameters())]

    padding, hole = rows["segments"] == 0, ~rows["mask"]
    assert padding.any()
    assert hole.any()
    other = rows | {
        "tokens": torch.where(padding, 77, rows["tokens"]),
        "old": torch.where(hole, torch.nan, rows["old"]),
        "reference": torch.where(hole, torch.nan, rows["reference"]),
    }
    for one, two in zip(measured(rows), measured(other), strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)


def test_answers_do_not_depend_on_the_number_of_workers(actors):
    prompts = [Prompt([10, 20, 30 + n], "x") for n in range(4)]
    whole = actors.judged(prompts, range(4), 5).rollout.answers()
    halves = [actors.judged(prompts[s], range(4)[s], 5).rollout.answers() for s in (slice(0, 2), slice(2, 4))]
    assert whole == halves[0] + halves[1]
    assert whole != actors.judged(prompts, range(4), 6).rollout.answers()


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_updates_of_a_rollout_use_every_answer_once_an_epoch(actors, epochs, minibatches):
    rows, live = judged_rows(actors)
    config = actors.config.model_copy(update={"epochs": epochs, "minibatches": minibatches})
    steps = list(grpo.rollout_steps(actors.context, config, rows, live, 9))
    assert [step.bound for step in steps] == [False] * (epochs * minibatches - 1) + [True]
    assert sum(step.weight for step in steps) == epochs * float(rows["mask"][live].sum())


def test_training_raises_the_reward_and_resumes_at_the_bound_of_a_rollout(root):
    settings = {"model": "pretrain", "batch": 16, "samples": 8, "new_tokens": 4, "learning_rate": 1e-2, "kl": 0.0}
    settings |= {"rewards": {"exact": 0.0, "ended": 1.0}, "max_steps": 30}
    recipe = root(grpo=settings)
    grpo.check(recipe, "grpo")
    grpo.run(Context.single(recipe, "grpo"))
    rows = [json.loads(line) for line in Path(recipe.root, "grpo/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.1
    manifest = stage.need_manifest(recipe.root, "grpo", "test")
    assert manifest.counts["samples"] == manifest.details["rollouts"] * 16


def test_rollouts_without_any_spread_end_the_run(root, monkeypatch):
    monkeypatch.setattr(grpo, "_BARREN", 2)
    recipe = root(grpo={"model": "pretrain", "batch": 2, "samples": 2, "new_tokens": 2})
    with pytest.raises(TrainingFailed, match="2 rollouts in a row"):
        grpo.run(Context.single(recipe, "grpo"))


def test_a_policy_that_always_earns_all_ends_early_and_is_published(root, monkeypatch):
    monkeypatch.setattr(grpo, "_BARREN", 3)
    settings = {"model": "pretrain", "batch": 16, "samples": 8, "new_tokens": 4, "learning_rate": 3e-2, "kl": 0.0}
    recipe = root(grpo=settings | {"rewards": {"exact": 0.0, "ended": 1.0}, "max_steps": 400})
    grpo.run(Context.single(recipe, "grpo"))
    manifest = stage.need_manifest(recipe.root, "grpo", "test")
    assert 1 < manifest.counts["steps"] < 400


def test_what_cannot_judge_or_leaves_no_room_is_refused(root, tmp_path):
    mine = {"model": "pretrain", "rewards": {"exact": 1.0, "model": 0.5}}
    recipe = root(grpo=mine | {"reward": "pretrain"})
    with pytest.raises(UserError, match=r'grpo\.reward = "pretrain": is no reward model'):
        grpo.check(recipe, "grpo")
    recipe = root(sft={}, grpo=mine | {"model": "sft", "reward": "sft"})
    with pytest.raises(UserError, match=r'grpo\.reward = "sft": is no reward model'):
        grpo.check(recipe, "grpo", {"sft"})
    with pytest.raises(UserError, match=r"grpo.new_tokens = 64: leaves no room .* context of 64 tokens"):
        grpo.check(root(grpo={"model": "pretrain", "new_tokens": 64}), "grpo")
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "pretrain" / "export", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"grpo\.reference = .*other.*: its tokenizer is not that of pretrain"):
        grpo.check(root(grpo={"model": "pretrain", "reference": str(other)}), "grpo")


def test_a_reward_model_judges_where_it_has_a_weight(root):
    from training.methods import reward

    recipe = root(
        reward={"model": "pretrain", "learning_rate": 1e-2},
        grpo={"model": "pretrain", "reward": "reward", "rewards": {"exact": 1.0, "model": 0.5}, "batch": 2},
    )
    reward.run(Context.single(recipe, "reward"))
    grpo.run(Context.single(recipe, "grpo"))
    assert {"stage": "reward"}.items() <= grpo.inputs(recipe, "grpo")[2].items()
    with pytest.raises(UserError, match=r"rewards\.model has a weight"):
        root(grpo={"rewards": {"model": 0.5}}).step("grpo")


def test_validation_lone_answers_and_too_few_prompts_are_refused(root):
    with pytest.raises(UserError, match=r"keep_best: there is no validation here"):
        grpo.check(root(grpo={"model": "pretrain", "keep_best": 1}), "grpo")
    with pytest.raises(UserError, match=r"samples = 1: .*greater than or equal to 2"):
        grpo.check(root(grpo={"model": "pretrain", "samples": 1}), "grpo")
    recipe = root(grpo={"model": "pretrain", "batch": 2})
    train.check(recipe, ["grpo"], [1, 2])
    with pytest.raises(UserError, match=r"grpo\.batch = 2: 3 workers need a prompt each"):
        train.check(recipe, ["grpo"], [3])
