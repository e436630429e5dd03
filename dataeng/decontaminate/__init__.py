"""Documents that contain items of evaluation sets.

An item is known by the n-grams (13 words) of each of its fields; a field of 8 to 12 words by all
of it; shorter ones cannot be told from chance and are counted as too short. A document is dropped
if the share of any item's n-grams that it holds is above ``share_max``, by default if it holds one.
Phrases that many documents hold (licences, templates) are no evidence by themselves: an n-gram in
more than ``common_documents`` documents counts only where at least half of an item is found.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataeng.recipe import Table, content


class EvaluationSet(Table):
    """An entry of `decontaminate.sets`."""

    name: str = Field(min_length=1, pattern=r"^[^/]+$", description="Name by which matches are reported")
    path: str = content(description="JSONL, JSONL.gz, Parquet, or CSV (without header, fields by number from 0)")
    fields: list[str | int] = Field(min_length=1, description="Fields whose texts must not be trained on")


class Config(Table):
    """Table `decontaminate`."""

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    input: list[str] | str = Field("filter", description="Stages whose kept documents are checked")
    sets: list[EvaluationSet] = Field([], description="Evaluation sets; the test set of [tasks] always belongs to them")
    ngram: int = Field(13, ge=3, description="Words of an n-gram")
    shortest: int = Field(8, ge=1, description="Fewest words of a text that is looked for as a whole")
    share_max: float = Field(0.0, ge=0, lt=1, description="Greatest share of an item's n-grams in a document")
    common_documents: int = Field(
        100, ge=0, description="An n-gram in more documents is no evidence without half of its item; 0: all are"
    )
