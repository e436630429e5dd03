import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.likelihood import clipped_objective, kl_k3, masked_sum, token_log_probs


def test_k3_at_a_tenth():
    assert kl_k3(torch.tensor(0.0).double(), torch.tensor(0.1).double()).item() == pytest.approx(0.00517092, abs=5e-9)


@given(st.floats(-5, 0), st.floats(-5, 0))
def test_k3_is_never_negative_and_zero_between_equals(policy, reference):
    found = kl_k3(torch.tensor(policy).double(), torch.tensor(reference).double()).item()
    assert found >= 0
    assert found > 0 or math.isclose(policy, reference, abs_tol=1e-7)


def test_log_probs_are_those_of_the_tempered_softmax():
    logits, targets = torch.randn(2, 3, 7), torch.randint(7, (2, 3))
    wanted = torch.log_softmax(logits / 0.7, -1).gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(token_log_probs(logits, targets, 0.7), wanted)


def test_nan_outside_the_mask_reaches_neither_value_nor_gradient():
    values = torch.tensor([1.0, 2.0, float("nan")], requires_grad=True)
    total = masked_sum(values, torch.tensor([True, True, False]))
    total.backward()
    assert total.item() == 3.0
    assert values.grad.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 1.0, -1.2, False),
        (0.5, 1.0, -0.5, True),
        (1.5, -1.0, 1.5, True),
        (0.5, -1.0, 0.8, False),
    ],
)
def test_clipping_bounds_the_gain_and_never_the_loss(ratio, advantage, loss, slope):
    new = torch.tensor([math.log(ratio)], requires_grad=True)
    found, clipped = clipped_objective(new, torch.zeros(1), torch.tensor([advantage]), 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert (new.grad.abs().item() > 0) is slope
    assert clipped.item() is not slope
