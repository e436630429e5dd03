"""What the rules that score by a classifier share: normalisation, windows, probabilities.

A model is a fastText file or, by its ending ``.npz``, one of ``filter.linear``.
"""

from __future__ import annotations

import html
import re
from itertools import pairwise
from typing import Any

from dataeng.cli import UserError
from dataeng.filter import language, linear

LABEL = "__label__"
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<!\w)@\w+")
_TOKEN = re.compile(r"[^\W_]+(?:['’*$@][^\W_]*)*|[!?]+")


def tokens(text: str) -> list[str]:
    """The text as classifiers are trained on it and see it: words in lower case, and runs of ! and ?.

    Entities are resolved; addresses and names of users are left out: they say where a text was
    found and not what it is.
    """
    if "&" in text:
        text = html.unescape(text)
    if "@" in text or "www." in text or "://" in text:
        text = _ADDRESS.sub(" ", text)
    return _TOKEN.findall(text.lower().encode("utf-8", "replace").decode())


def windows(text: str, size: int) -> list[str]:
    """Stretches of ``size`` tokens, one line each; the last takes less than half a window along."""
    found = tokens(text)
    last = max(1, (len(found) + size // 2) // size)
    edges = [size * number for number in range(last)] + [len(found)]
    return [" ".join(found[start:end]) for start, end in pairwise(edges)]


def probability(line: str, label: str, model: Any) -> float:
    """The probability of a label for one line of tokens; 0 where the model knows none of them."""
    if isinstance(model, linear.Linear):
        return model.probability(line, label)
    found = model.predict(line + "\n", -1, 0.0, "strict") if line else []
    return next((min(max(float(score), 0.0), 1.0) for score, name in found if name == LABEL + label), 0.0)


def labels_of(model: Any) -> list[str]:
    """The labels that a model knows."""
    if isinstance(model, linear.Linear):
        return list(model.labels)
    return [name.removeprefix(LABEL) for name in model.getLabels("strict")[0]]


def model_with(path: str, label: str) -> Any:
    """The model of a file, which must know the label; raises UserError where it does not."""
    model = linear.load(path) if path.endswith(".npz") else language.load(path)
    labels = labels_of(model)
    if label not in labels:
        raise UserError(f"{path}: knows no label {label!r}; its labels: {', '.join(sorted(labels))}")
    return model


def window_probabilities(text: str, label: str, path: str, size: int) -> list[float]:
    """The probability of a label for each window of a text."""
    model = model_with(path, label)
    return [probability(line, label, model) for line in windows(text, size)]
