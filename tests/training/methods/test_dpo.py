import pytest
import torch

from dataeng import stage
from training import huggingface
from training.context import Context
from training.methods import dpo, reward
from training.methods.reward import EncodedPair
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights

CONFIG = ModelConfig(layers=1, width=32, heads=4, context=64)


def model(seed):
    made = Decoder(CONFIG, 60)
    init_weights(made, seed)
    return made


def pairs():
    def side(*ids):
        return reward.Example([5, 6, *ids], [False, False, *[True] * len(ids)])

    return [EncodedPair(side(7, 3), side(8, 9, 3)), EncodedPair(side(10, 11, 12, 3), side(3))]


@pytest.mark.parametrize(("difference", "loss"), [(0.0, 0.693147), (10.0, 0.313262)])
def test_the_loss_at_beta_a_tenth(difference, loss):
    policy, reference = torch.tensor([difference - 3.0, -4.0]), torch.tensor([-3.0, -4.0])
    assert dpo.dpo_loss(dpo.margins(policy, reference, 0.1)).item() == pytest.approx(loss, abs=1e-6)


def test_at_the_reference_the_loss_is_ln_2_and_pushes_the_right_way():
    policy, config = model(1), dpo.Config(precision="fp32")
    batch = reward.pair_batch(pairs(), 8, 1, 2)
    total, weight, _ = dpo.make_loss(model(1), config)(policy, batch)
    assert (total / weight).item() == pytest.approx(0.693147, abs=1e-6)
    total.backward()
    before = dpo.answer_log_probs(policy, batch).detach()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter -= 0.05 * parameter.grad
    change = dpo.answer_log_probs(policy, batch).detach() - before
    assert (change[0::2] > change[1::2]).all()


def test_only_answers_are_counted_and_padding_is_not():
    policy = model(2)
    narrow, wide = reward.pair_batch(pairs(), 8, 1, 2), reward.pair_batch(pairs(), 40, 1, 5)
    found = dpo.answer_log_probs(policy, narrow)
    torch.testing.assert_close(dpo.answer_log_probs(policy, wide)[:4], found)
    logits = torch.log_softmax(policy(torch.tensor([[5, 6, 7, 3]])), -1)
    assert found[0].item() == pytest.approx((logits[0, 1, 7] + logits[0, 2, 3]).item(), abs=1e-5)
    loss = dpo.make_loss(model(3), dpo.Config(likelihood=0.5))
    for one, two in zip(loss(policy, narrow)[:2], loss(policy, wide)[:2], strict=True):
        torch.testing.assert_close(one, two)


def test_the_reference_stays_and_the_margin_grows(root):
    recipe = root(dpo={"model": "pretrain", "max_steps": 20, "learning_rate": 3e-3})
    dpo.check(recipe, "dpo")
    dpo.run(Context.single(recipe, "dpo"))
    metrics = stage.need_manifest(recipe.root, "dpo", "test").details["metrics"]
    assert metrics["margin"] > 0
    assert metrics["loss"] < 0.6
    assert 0 <= metrics["validation_accuracy"] <= 1
    before, after = (huggingface.state_of(f"{recipe.root}/{name}/export") for name in ("pretrain", "dpo"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
