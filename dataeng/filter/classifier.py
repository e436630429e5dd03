"""What the rules that score by a fastText classifier share: models, windows, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dataeng.cli import UserError
from dataeng.filter.language import load

LABEL = "__label__"


def normalised(text: str) -> str:
    """The text as classifiers are trained on it and see it: one line, lower case, valid Unicode."""
    return " ".join(text.lower().split()).encode("utf-8", "replace").decode()


def windows(text: str, size: int) -> list[str]:
    """Normalised stretches of ``size`` words; the last takes less than half a window along."""
    words = normalised(text).split(" ")
    last = max(1, (len(words) + size // 2) // size)
    edges = [size * number for number in range(last)] + [len(words)]
    return [" ".join(words[start:end]) for start, end in pairwise(edges)]


def probability(line: str, label: str, model: Any) -> float:
    """The probability of a label for one normalised line."""
    found = model.predict(line + "\n", -1, 0.0, "strict")
    return next((min(max(float(score), 0.0), 1.0) for score, name in found if name == LABEL + label), 0.0)


def model_with(path: str, label: str) -> Any:
    """The model of a file, which must know the label; raises UserError where it does not."""
    model = load(path)
    labels = [name.removeprefix(LABEL) for name in model.getLabels("strict")[0]]
    if label not in labels:
        raise UserError(f"{path}: knows no label {label!r}; its labels: {', '.join(sorted(labels))}")
    return model


def window_probabilities(text: str, label: str, path: str, size: int) -> Sequence[float]:
    """The probability of a label for each window of a text."""
    model = model_with(path, label)
    return [probability(line, label, model) for line in windows(text, size)]
