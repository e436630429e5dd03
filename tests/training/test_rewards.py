import pytest
from pydantic import ValidationError

from training.rewards import VERIFIERS, Answer, Rewards, combine


@pytest.mark.parametrize(
    ("verifier", "text", "ended", "expected", "reward"),
    [
        ("exact", "red car", True, "red car", 1.0),
        ("exact", "red car", True, " red car\n", 1.0),
        ("exact", "red car", False, "red car", 0.0),
        ("exact", "red car boat", True, "red car", 0.0),
        ("exact", "Red car", True, "red car", 0.0),
        ("exact", "", True, "red", 0.0),
        ("number", "So it is 1,072 in all.", True, "… #### 1072", 1.0),
        ("number", "7.0", True, "7", 1.0),
        ("number", "-7", True, "7", 0.0),
        ("number", "7", False, "7", 0.0),
        ("number", "none", True, "none", 0.0),
        ("overlap", "a b x", True, "a b c", pytest.approx(2 / 3)),
        ("overlap", "a b c d", True, "a b c", 0.75),
        ("overlap", "a b c", False, "a b c", 0.0),
        ("ended", "anything", True, "", 1.0),
        ("ended", "anything", False, "", 0.0),
    ],
)
def test_verifiers(verifier, text, ended, expected, reward):
    assert VERIFIERS[verifier](Answer(text, ended, expected)) == reward


def test_rewards_are_weighted_sums():
    answers = [Answer("a", True, "a"), Answer("b", True, "a"), Answer("a", False, "a")]
    weights = Rewards(exact=1.0, ended=0.5, model=0.1)
    assert combine(weights, answers, [1.0, -2.0, 0.0]) == pytest.approx([1.6, 0.3, 0.0])


def test_every_verifier_can_be_weighted_and_something_must_be():
    assert set(VERIFIERS) | {"model"} == set(Rewards.model_fields)
    with pytest.raises(ValidationError, match="all weights are 0"):
        Rewards(exact=0.0)
    with pytest.raises(ValueError, match="no scores"):
        combine(Rewards(model=1.0), [Answer("a", True, "a")])
