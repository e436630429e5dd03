import math

import pytest

from training.evaluate import answers
from training.evaluate.answers import Judged


def judged(kind, greedy, *sampled):
    return Judged(kind, f"{kind}?", "x", "x" if greedy else "y", greedy, ["x"] * len(sampled), list(sampled))


OURS = [judged("a", True, True, True), judged("a", True, True, False), judged("b", False, False, False)]
THEIRS = [judged("a", False, False, True), judged("a", True, True, False), judged("b", False, True, False)]


def test_accuracy_in_all_and_by_kind():
    found = answers.summary(OURS)
    assert found["greedy"]["accuracy"] == pytest.approx(2 / 3)
    assert found["greedy"]["by_kind"] == {"a": 1.0, "b": 0.0}
    assert found["sampled"]["accuracy"] == pytest.approx(0.5)
    assert found["sampled"]["by_kind"] == {"a": 0.75, "b": 0.0}
    assert found["sampled"]["error"] == pytest.approx(0.5 / math.sqrt(3))


def test_differences_are_paired_by_item():
    found = answers.differences(OURS, THEIRS)
    assert found["greedy"] == pytest.approx({"mean": 1 / 3, "error": 1 / 3})
    assert found["sampled"]["mean"] == pytest.approx(0.0)
    assert found["sampled"]["error"] == pytest.approx(0.5 / math.sqrt(3))
    same = answers.differences(OURS, OURS)
    assert same["sampled"] == {"mean": 0.0, "error": 0.0}


def test_shown_answers_take_the_kinds_in_turn():
    assert [row["kind"] for row in answers.shown(OURS, 2)] == ["a", "b"]
    assert answers.shown(OURS, 9)[0]["correct"] is True
