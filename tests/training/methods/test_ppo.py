import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataeng import stage
from training import huggingface, posttrain
from training.context import Context
from training.generate import Rollout
from training.methods import grpo, ppo
from training.rollouts import Judged, Prompt

NAN = float("nan")


def slowly(rewards, values, gamma, gae_lambda):
    """GAE as a sum: A_t = Σ (γλ)^k δ_{t+k} (arXiv:1506.02438, eq. 16)."""
    later = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, later, values, strict=True)]
    return [sum((gamma * gae_lambda) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))]


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 1.0), (0.9, 0.0)])
def test_gae_is_its_sum_whatever_stands_in_the_padding(gamma, gae_lambda):
    rewards = torch.tensor([[0.1, -0.2, 1.0, NAN, 5.0], [0.5, 0.4, 0.3, 0.2, 1.1]])
    values = torch.tensor([[0.3, 0.2, 0.6, 9.0, NAN], [0.1, 0.2, 0.3, 0.4, 0.5]])
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    advantages, returns = ppo.gae(rewards, values, mask, gamma, gae_lambda)
    for row, length in ((0, 3), (1, 5)):
        wanted = slowly(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, gae_lambda)
        assert advantages[row, :length].tolist() == pytest.approx(wanted, abs=1e-6)
        assert returns[row, :length].tolist() == pytest.approx((torch.tensor(wanted) + values[row, :length]).tolist())
    assert advantages[0, 3:].tolist() == returns[0, 3:].tolist() == [0, 0]


def test_the_score_comes_with_the_last_token_and_not_after_it():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    policy, reference = torch.tensor([[-1.0, -2.0, NAN], [-1, -1, -1]]), torch.tensor([[-1.5, -2.0, 3.0], [-1, -1, -2]])
    found = ppo.token_rewards(torch.tensor([1.0, -1.0]), policy, reference, mask, 0.1)
    torch.testing.assert_close(found, torch.tensor([[-0.05, 1.0, 0.0], [0.0, 0.0, -1.1]]))


def test_whitening_sees_the_mask_alone():
    context, mask = Context(None, "ppo", None), torch.tensor([[True, True, False], [True, False, False]])
    found = ppo.whiten(context, torch.tensor([[1.0, 2.0, NAN], [6.0, 1e9, -4.0]]), mask)
    assert found[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert found[mask].std().item() == pytest.approx(1, abs=1e-6)
    assert found[~mask].tolist() == [0, 0, 0]


def test_the_critic_is_held_near_its_old_values():
    values, old, returns = torch.tensor([1.0, 1.0, 0.1]), torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 3.0, 0.5])
    assert ppo.value_loss(values, old, returns, 0.2).tolist() == pytest.approx([0.32, 3.92, 0.08])


@pytest.fixture
def actors(root):
    """Actor with critic, and reference, of a tiny model."""
    recipe = root(ppo={"model": "pretrain", "batch": 8, "new_tokens": 6})
    context = Context.single(recipe, "ppo")
    begin = posttrain.start(context, "pretrain")
    state = posttrain.scored_state(begin.state, "value", begin.architecture.width)
    state.more["value.weight"] = torch.randn(1, begin.architecture.width, generator=torch.Generator().manual_seed(0))
    policy = posttrain.filled(context, lambda: ppo.ActorCritic(begin.decoder()), context.config, state)
    return grpo.actors_of(context, context.config, begin, policy)


def widened(rollout: Rollout, left: int, right: int, token: int) -> Rollout:
    """The same answers with more padding, made of another token."""
    more = torch.nn.functional.pad
    tokens = torch.where(rollout.segments_BL == 0, token, rollout.tokens_BL)
    return Rollout(
        tokens_BL=more(tokens, (left, right), value=token),
        positions_BL=more(rollout.positions_BL, (left, right)),
        segments_BL=more(rollout.segments_BL, (left, right)),
        answer_BC=more(rollout.answer_BC, (0, right)),
        ended_B=rollout.ended_B,
        prompt_width=rollout.prompt_width + left,
    )


def test_padding_enters_neither_advantages_nor_gradients(actors):
    prompts = [Prompt([10, 20, *range(30, 31 + n)], "x") for n in range(8)]
    actors.sampling = replace(actors.sampling, stops=tuple(range(150)))
    rollout = actors.judged(prompts, range(8), 0).rollout
    rewards = torch.tensor([1.0, 0, 0, 1, 0, 1, 1, 0])
    loss = ppo.make_loss(actors.config)

    def measured(found, hole):
        with torch.no_grad():
            policy, values = actors._scored(actors.policy, found)
            reference, _ = actors._scored(actors.reference, found)
        outside = ~found.answer_BC
        spoilt = [torch.where(outside, hole, part) for part in (policy, reference, values)]
        rows = ppo.experience(actors.context, actors.config, Judged(found, rewards, *spoilt))
        actors.policy.zero_grad()
        total, weight, _ = loss(actors.policy, rows)
        total.backward()
        gradients = [parameter.grad.clone() for parameter in actors.policy.parameters()]
        return [total.detach(), weight, rows["advantages"][found.answer_BC], *gradients]

    plain = measured(rollout, 0.0)
    assert plain[0] != 0
    for one, two in zip(plain, measured(widened(rollout, 8, 5, 77), NAN), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_the_critic_learns_with_the_trunk_and_stays_out_of_the_export(root):
    settings = {"model": "pretrain", "batch": 64, "new_tokens": 4, "learning_rate": 2e-2, "kl": 0.0}
    settings |= {"rewards": {"exact": 0.0, "ended": 1.0}, "max_steps": 40}
    recipe = root(ppo=settings)
    ppo.check(recipe, "ppo")
    ppo.run(Context.single(recipe, "ppo"))
    rows = [json.loads(line) for line in Path(recipe.root, "ppo/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.1
    before, after = (huggingface.state_of(f"{recipe.root}/{name}/export") for name in ("pretrain", "ppo"))
    assert before.keys() == after.keys()
    assert stage.need_manifest(recipe.root, "ppo", "test").counts["steps"] == 40
