"""Likeness to text of known quality, by a fastText classifier of the user's own (as DCLM does).

The score is the mean over the windows of a document, longer windows counting no more. Train a
model with ``spark_jobs/train_classifier.py``; choose the threshold from the scores of kept documents.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds, classifier
from dataeng.filter.bounds import Limit
from dataeng.recipe import Table, content


class Config(Table):
    """Table `filter.quality`."""

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("fasttext",)

    model: str = content(description="A fastText classifier")
    label: str = Field("good", description="The model's label for what is to be kept")
    threshold: float = Field(0.5, ge=0, le=1, description="Least mean probability of `label`")
    window_words: int = Field(1000, ge=1, description="Words of a window")
    languages: list[str] = Field([], description="ISO 639-1 codes that the model knows; empty: all")


def scores(document: Document, config: Config) -> dict[str, float]:
    """``quality``: the mean probability of the label over the windows; absent in other languages."""
    if config.languages and document.language not in (None, *config.languages):
        return {}
    found = classifier.window_probabilities(document.text or "", config.label, config.model, config.window_words)
    return {"quality": sum(found) / len(found)}


def limits(config: Config) -> list[Limit]:
    """The one bound."""
    return [Limit("quality", "min", config.threshold)]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """Drop what scores below the threshold."""
    return bounds.decide(found, limits(config))
