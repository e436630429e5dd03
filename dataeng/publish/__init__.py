"""The corpus as training reads it: groups mixed, documents split into train, validation and test.

Both are functions of a document, the seed and a few numbers a group, so that no partitioning and no
order changes them, and the same page crawled again stays where it was.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dataeng.document import ROW
from dataeng.recipe import Table, runtime

UNITS_PER_TOKEN = {"bytes": 4.0, "words": 0.75}  # English text under a vocabulary of 32k to 128k


class Quality(Table):
    """Ranges of a score, the buckets of the dimension `quality`."""

    score: str = Field("quality", description="The score, as documents bear it")
    bounds: list[float] = Field(description="Bounds between ranges, ascending: [0.3, 0.6] make buckets 0, 1 and 2")

    @field_validator("bounds")
    @classmethod
    def _ascending(cls, value: list[float]) -> list[float]:
        if not value or not all(low < high for low, high in pairwise(value)):
            raise ValueError("must be ascending numbers, at least one")
        return value


class Order(Table):
    """The order of a curriculum."""

    score: str = Field(description="The score that documents are ordered by; those without it come last")
    descending: bool = Field(False, description="The highest first")


class Config(Table):
    """Table `publish`."""

    version: ClassVar[int] = 3
    kept_tables: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    follows: ClassVar[tuple[str, ...]] = ("augment", "semantic", "passages", "dedup")

    input: str | list[str] = Field(
        "dedup",
        description="The stage, or stages, whose kept documents come in; by default the last of dedup, passages, "
        "semantic and augment that the recipe has",
    )
    validation: float = Field(0.02, ge=0, lt=1, description="Share of clusters for validation")
    test: float = Field(0.02, ge=0, lt=1, description="Share of clusters for the test split")
    by: list[Literal["source", "language", "quality"]] = Field(
        ["source"], min_length=1, description="What makes a group; its name joins the values: web/en/2"
    )
    weights: dict[str, float] = Field(
        default_factory=dict, description="Shares of tokens by group (* is any value); the scarcest is used up"
    )
    tokens: dict[str, float] = Field(
        default_factory=dict, description="Tokens wanted by group (estimated; * is any value)"
    )
    short: Literal["refuse", "allow"] = Field(
        "refuse", description="What to do where a group has less than its `tokens` after all repetitions"
    )
    quality: Quality | None = Field(None, description="The ranges that the dimension quality stands for")
    language_alpha: float = Field(
        1.0, ge=0, le=1, description="Languages share by (what they have)^alpha: 1 as they are, 0.3 as XLM-R and mT5"
    )
    unit: Literal["bytes", "words"] = Field("bytes", description="What tokens are estimated from (UTF-8 bytes)")
    units_per_token: float | None = Field(
        None, gt=0, description="Units a token; by default 4 bytes or 0.75 words (English)"
    )
    maximum_repetitions: float = Field(
        1.0, ge=1, description="How often a scarce group may be repeated (metadata `repeat`); up to 4 costs little"
    )
    order: Order | None = Field(None, description="The order of files and rows, easy to hard; without it there is none")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Further columns of the splits, out of the maps: title = 'metadata.title', spam = 'scores.quality'",
    )
    licence: str = runtime(
        "other", pattern=r"^[A-Za-z0-9.+-]+$", description="The corpus's licence as its card (README.md) names it"
    )
    minimum_bytes: int = Field(0, ge=0, description="Fewer bytes of text in all splits are a failure")

    @field_validator("weights", "tokens")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for source, share in value.items():
            if not 0 <= share < float("inf"):
                raise ValueError(f"{source} = {share}: must be 0 (leave it out) or more")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        if self.weights and self.tokens:
            raise ValueError("weights and tokens exclude each other: give shares or budgets")
        if self.weights and not sum(self.weights.values()):
            raise ValueError("weights are all 0")
        if not self.input:
            raise ValueError("input names no stage")
        return self

    @model_validator(mode="after")
    def _grouped(self) -> Config:
        if len(set(self.by)) < len(self.by):
            raise ValueError("by names a dimension twice")
        if ("quality" in self.by) != (self.quality is not None):
            raise ValueError("by = [..., 'quality'] and the table quality (score, bounds) go together")
        for key in (*self.weights, *self.tokens):
            parts = key.count("/") + 1
            if parts < len(self.by) or ("source" not in self.by and parts > len(self.by)):
                raise ValueError(f"{key!r} is no group: by makes names such as {'/'.join(self.by)}, with * for any")
        if self.language_alpha < 1 and "language" not in self.by:
            raise ValueError("language_alpha needs by = ['language'] or ['source', 'language']")
        if self.language_alpha < 1 and self.maximum_repetitions == 1 and not self.tokens:
            raise ValueError("language_alpha repeats scarce languages: raise maximum_repetitions, or give budgets")
        return self

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: dict[str, str]) -> dict[str, str]:
        taken = {name.lower() for name in ROW.names}
        for name, place in value.items():
            if not re.fullmatch(r"[A-Za-z]\w*", name) or name.lower() in taken:
                raise ValueError(f"{name}: must be letters, digits and _, and not the name of another column")
            if not re.fullmatch(r"(scores|metadata)\..+", place):
                raise ValueError(f"{name} = {place}: must be scores.NAME or metadata.NAME")
            taken.add(name.lower())
        return value

    def mixes(self) -> bool:
        """Whether groups are cut or repeated at all."""
        return bool(self.weights or self.tokens or self.language_alpha < 1)

    def per_token(self) -> float:
        """Units (bytes or words) that make a token."""
        return self.units_per_token or UNITS_PER_TOKEN[self.unit]
