"""Rewards of generated answers: verifiers that compute them, and a reward model's score, weighted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pydantic import Field, model_validator

from dataeng.recipe import Table

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Answer(NamedTuple):
    """A generated answer's text, whether it ended by itself, and the right answer."""

    text: str
    ended: bool
    expected: str


def exact(answer: Answer) -> float:
    """1 where the whole answer, end token included, is the expected one, else 0."""
    return float(answer.ended and answer.text == answer.expected.strip())


def last_number(text: str) -> str | None:
    """The last number in a text, without thousands' commas and trailing zeros."""
    found = _NUMBER.findall(text)
    return f"{float(found[-1].replace(',', '')):.10g}" if found else None


def number(answer: Answer) -> float:
    """1 where the answer ended and its last number is the expected answer's last number (as in GSM8K)."""
    wanted = last_number(answer.expected)
    return float(answer.ended and wanted is not None and last_number(answer.text) == wanted)


def overlap(answer: Answer) -> float:
    """The share of positions, by words, at which an ended answer agrees with the expected one."""
    given, wanted = answer.text.split(), answer.expected.split()
    if not answer.ended or not wanted:
        return 0.0
    same = sum(a == b for a, b in zip(given, wanted, strict=False))
    return same / max(len(given), len(wanted))


def ended(answer: Answer) -> float:
    """1 where the answer ended by itself."""
    return float(answer.ended)


VERIFIERS: dict[str, Callable[[Answer], float]] = {
    "exact": exact,
    "number": number,
    "overlap": overlap,
    "ended": ended,
}


class Rewards(Table):
    """Weights of what a reward is made of; 0 leaves a part out."""

    exact: float = Field(1.0, description="Weight of: the whole answer, with its end token, is the expected one")
    number: float = Field(0.0, description="Weight of: the last number is the expected one (GSM8K's check)")
    overlap: float = Field(0.0, description="Weight of: the share of words that stand where they are expected")
    ended: float = Field(0.0, description="Weight of: the answer ended by itself")
    model: float = Field(0.0, description="Weight of the reward model's score")

    @model_validator(mode="after")
    def _something(self) -> Rewards:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError("all weights are 0: give one of exact, number, overlap, ended or model a weight")
        return self


def combine(weights: Rewards, answers: Sequence[Answer], scores: Sequence[float] | None = None) -> list[float]:
    """The reward of each answer; ``scores`` are the reward model's, needed where ``model`` has a weight."""
    if weights.model and scores is None:
        raise ValueError("rewards.model has a weight, but there are no scores of a reward model")
    total = [0.0] * len(answers)
    for name, verify in VERIFIERS.items():
        if weight := getattr(weights, name):
            total = [sum_ + weight * verify(answer) for sum_, answer in zip(total, answers, strict=True)]
    if weights.model and scores is not None:
        total = [sum_ + weights.model * score for sum_, score in zip(total, scores, strict=True)]
    return total
