"""Below the document: lines that a site repeats and long passages that stand elsewhere too, cut out of its text.

A rule is a module here: ``lines`` and ``substrings``. Both look at the texts as they entered, so neither hangs on
what the other cuts. Every repeat names its first occurrence, which stays: first is the least in the order of
(hash of the URL, id, place in the text). That order is the same after another crawl of the same pages, and
whoever follows a cut span to its first occurrence, and on where that was cut itself, comes to text that is kept.

What is computed for one document stands here; how often something occurs is counted in ``spark_jobs/passages.py``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from dataeng.recipe import Rules


class Config(Rules):
    """Table `passages`: the rules by name, and a table of its own for each."""

    version: ClassVar[int] = 1
    package: ClassVar[str] = "dataeng.passages"

    input: str | list[str] = Field("dedup", description="The stage, or stages, whose kept documents come in")
    rules: list[Literal["lines", "substrings"]] = Field(
        ["lines", "substrings"], min_length=1, description="What is cut"
    )
    minimum_characters: int = Field(
        100, ge=0, description="A document that keeps fewer after a cut is dropped, unless others' text begins in it"
    )

    @field_validator("input")
    @classmethod
    def _some(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("names no stage")
        return value

    def rule(self, name: str) -> Any:
        """The table of a rule, or None where neither ``rules`` nor the recipe names it."""
        return getattr(self, name, None)
