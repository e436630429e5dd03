"""The corpus as training reads it: sources mixed, documents split into train, validation and test.

Both are functions of a document, the seed and a few numbers a source, so that no partitioning and no
order changes them, and the same page crawled again stays where it was.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dataeng.recipe import Table, runtime

UNITS_PER_TOKEN = {"bytes": 4.0, "words": 0.75}  # English text under a vocabulary of 32k to 128k


class Config(Table):
    """Table `publish`."""

    version: ClassVar[int] = 2
    kept_tables: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    follows: ClassVar[tuple[str, ...]] = ("augment", "semantic", "passages", "dedup")

    input: str | list[str] = Field(
        "dedup",
        description="The stage, or stages, whose kept documents come in; by default the last of dedup, passages, "
        "semantic and augment that the recipe has",
    )
    validation: float = Field(0.02, ge=0, lt=1, description="Share of clusters for validation")
    test: float = Field(0.02, ge=0, lt=1, description="Share of clusters for the test split")
    weights: dict[str, float] = Field(
        default_factory=dict, description="Shares of tokens by source; the scarcest source is used up"
    )
    tokens: dict[str, float] = Field(default_factory=dict, description="Tokens wanted by source (estimated)")
    unit: Literal["bytes", "words"] = Field("bytes", description="What tokens are estimated from (UTF-8 bytes)")
    units_per_token: float | None = Field(
        None, gt=0, description="Units a token; by default 4 bytes or 0.75 words (English)"
    )
    maximum_repetitions: float = Field(
        1.0, ge=1, description="How often a scarce source may be repeated (metadata `repeat`); up to 4 costs little"
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

    def mixes(self) -> bool:
        """Whether sources are cut or repeated at all."""
        return bool(self.weights or self.tokens)

    def per_token(self) -> float:
        """Units (bytes or words) that make a token."""
        return self.units_per_token or UNITS_PER_TOKEN[self.unit]
