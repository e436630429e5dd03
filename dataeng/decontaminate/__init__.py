"""Documents that contain items of evaluation sets.

An item is looked for in three ways. By its n-grams (13 words): a document is contaminated if the share
of them that it holds is above ``share_max``, by default if it holds one; a text of 8 to 12 words by all
of it. By its question and, soon after, its answer, where the question is shorter than that. And by
alignment, for copies in which words were changed: ``edited_min`` of a text's words in order.
Phrases that many documents hold (licences, templates), or many items of a set (prompts), are no evidence
by themselves. docs/decisions/contamination.md says what each bound costs and finds.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from dataeng.recipe import Table, content


class EvaluationSet(Table):
    """An entry of `decontaminate.sets`."""

    name: str = Field(min_length=1, pattern=r"^[^/]+$", description="Name by which matches are reported")
    path: str = content(description="JSONL, JSONL.gz, Parquet, or CSV (without header, fields by number from 0)")
    format: Literal["mmlu", "humaneval"] | None = Field(
        None, description="A known layout, whose fields need no names; without fields it is told from the file"
    )
    fields: list[str | int] = Field(
        [], description="Fields whose texts must not be trained on; dots go inwards (`rows.text`, `choices.0`)"
    )
    answers: list[str | int] = Field([], description="Fields with the reference answers: short questions need them")

    @model_validator(mode="after")
    def _fields_are_named(self) -> EvaluationSet:
        if self.answers and not self.fields:
            raise ValueError("answers need fields: name the field of the question as well")
        if self.format and self.fields:
            raise ValueError(f'format = "{self.format}" knows its fields: give one of the two')
        return self


class Config(Table):
    """Table `decontaminate`."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    input: list[str] | str = Field("filter", description="Stages whose kept documents are checked")
    sets: list[EvaluationSet] = Field([], description="Evaluation sets; the test set of [tasks] always belongs to them")
    ngram: int = Field(13, ge=3, description="Words of an n-gram")
    shortest: int = Field(8, ge=1, description="Fewest words of a text that is looked for as a whole")
    with_answer: int = Field(7, ge=4, description="Fewest words of a shorter question and its answer together")
    share_max: float = Field(0.0, ge=0, lt=1, description="Greatest share of an item's n-grams in a document")
    edited: bool = Field(True, description="Whether to look for copies in which words were changed, too")
    edited_min: float = Field(0.75, ge=0.5, le=1, description="Share of a text's words, in order, that is a copy")
    edited_shortest: int = Field(8, ge=4, description="Fewest words of a text of which edited copies are looked for")
    common_documents: int = Field(
        100, ge=0, description="An n-gram in more documents is no evidence without half of its item; 0: all are"
    )
    phrase_documents: int = Field(
        1000, ge=0, description="An n-gram in more documents is a phrase and no evidence at all; 0: all are"
    )
    common_items: float = Field(
        0.05, gt=0, le=1, description="Eight words in a row in more of a set's texts (and over 20) are its template"
    )
    action: Literal["drop", "cut"] = Field("drop", description="Drop the document, or cut the lines that hold items")
    shortest_rest: int = Field(50, ge=0, description="Fewest words that a cut leaves; a document with less is dropped")
