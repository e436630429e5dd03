"""Abuse, by a classifier (classes ``toxic`` and ``ok``; fastText or ``filter.linear``) on windows of a document.

The score is that of the worst window, so that a long page is not excused by its clean part. The
model beside this package (``dataeng/models/toxicity.npz``, made by ``make classifiers``) knows
English only: documents in other languages are left alone, those of unknown language are scored.

Its threshold is for windows, where the evidence of 100 words adds up, and is above the 0.5 at which the
figures of toxicity.json for single comments are stated: of the abusive ones held back 0.9 takes 86 %, 0.8
takes 92 %, 0.95 takes 79 %. Of pages that training left out, these thresholds take (benchmarks/toxicity.py;
the news are 2,500 articles with their hard subjects; all three were looked at when 0.9 was chosen):

==========================  =======  =======  =======
threshold                   0.8      0.9      0.95
abusive forum threads       100 %    100 %    100 %
clean pages                 0.11 %   0.03 %   0.03 %
news articles               0.92 %   0.32 %   0.20 %
sentences naming groups     1.5 %    0 %      0 %
==========================  =======  =======  =======
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dataeng.document import Document, Verdict
from dataeng.filter import bounds, classifier
from dataeng.filter.bounds import Limit
from dataeng.recipe import Table, content

MODEL = Path(__file__).parent.parent / "models" / "toxicity.npz"


class Config(Table):
    """Table `filter.toxicity`."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("fasttext", "numpy")

    threshold: float = Field(0.9, ge=0, le=1, description="Greatest probability of `label` in any window")
    window_words: int = Field(100, ge=1, description="Words of a window")
    languages: list[str] = Field(["en"], description="ISO 639-1 codes that the model knows; empty: all")
    label: str = Field("toxic", description="The model's label for what is dropped")
    model: str | None = content(None, description="A classifier, .ftz or .npz; by default the one in dataeng/models")

    def files(self) -> list[str]:
        """The model's file, also where it is the default one."""
        return [self.model or str(MODEL)]


def scores(document: Document, config: Config) -> dict[str, float]:
    """``toxicity``: the highest probability of abuse in any window; absent in other languages."""
    if config.languages and document.language not in (None, *config.languages):
        return {}
    path = config.files()[0]
    found = classifier.window_probabilities(document.text or "", config.label, path, config.window_words)
    return {"toxicity": max(found)}


def limits(config: Config) -> list[Limit]:
    """The one bound."""
    return [Limit("toxicity", "max", config.threshold)]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """Drop what scores above the threshold."""
    return bounds.decide(found, limits(config))
