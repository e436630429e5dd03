"""Likeness to text that is wanted, by a classifier: against spam, or a user's own (as DCLM does).

The score is the mean over the windows of a document, longer windows counting no more. The model beside
this package (``dataeng/models/quality.ftz``, made by ``make classifiers``) tells mail spam (pills, shares,
advance fees, random words) from ordinary English text; its figures stand in quality.json. Documents in
other languages are left alone, those of unknown language are scored. For another notion of quality train a
model with ``spark_jobs/train_classifier.py`` and set `model`, `label`, `languages` and a threshold, which
``python -m dataeng.thresholds`` chooses from the scores of kept documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds, classifier
from dataeng.filter.bounds import Limit
from dataeng.recipe import Table, content

MODEL = Path(__file__).parent.parent / "models" / "quality.ftz"


class Config(Table):
    """Table `filter.quality`."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("fasttext", "numpy")

    model: str | None = content(None, description="A classifier, .ftz or .npz; by default the one in dataeng/models")
    label: str = Field("ok", description="The model's label for what is to be kept")
    threshold: float = Field(0.3, ge=0, le=1, description="Least mean probability of `label`")
    window_words: int = Field(1000, ge=1, description="Words of a window")
    languages: list[str] = Field(["en"], description="ISO 639-1 codes that the model knows; empty: all")

    def files(self) -> list[str]:
        """The model's file, also where it is the default one."""
        return [self.model or str(MODEL)]


def scores(document: Document, config: Config) -> dict[str, float]:
    """``quality``: the mean probability of the label over the windows; absent in other languages."""
    if config.languages and document.language not in (None, *config.languages):
        return {}
    path = config.files()[0]
    found = classifier.window_probabilities(document.text or "", config.label, path, config.window_words)
    return {"quality": sum(found) / len(found)}


def limits(config: Config) -> list[Limit]:
    """The one bound."""
    return [Limit("quality", "min", config.threshold)]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """Drop what scores below the threshold."""
    return bounds.decide(found, limits(config))
