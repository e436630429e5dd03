"""How much is hidden from encoders and encoder–decoders. No torch here: drivers check recipes without it."""

from __future__ import annotations

from pydantic import Field, model_validator

from dataeng.recipe import Table


class Masking(Table):
    """Which tokens are hidden, and how."""

    share: float = Field(0.15, gt=0, lt=1, description="Share of a row's tokens that are to be said again")
    hidden: float = Field(0.8, ge=0, le=1, description="Share of those in whose place the mask token stands")
    random: float = Field(0.1, ge=0, le=1, description="Share of those in whose place any token stands")
    whole_words: bool = Field(False, description="Whether all tokens of a word are hidden together")

    @model_validator(mode="after")
    def _sums_up(self) -> Masking:
        if self.hidden + self.random > 1:
            raise ValueError(f"hidden {self.hidden} and random {self.random} must be at most 1 together")
        return self

    def count(self, row_tokens: int) -> int:
        """The targets of a row."""
        return max(1, round(self.share * row_tokens))


class SpanNoise(Table):
    """How much is taken out of an encoder–decoder's rows."""

    share: float = Field(0.15, gt=0, lt=0.6, description="Share of a row's tokens that are to be said")
    mean: float = Field(3.0, ge=1, description="Mean length of a span, in tokens")

    def tokens(self, row_tokens: int) -> int:
        """The tokens that are taken out of a row."""
        return max(1, round(self.share * row_tokens))

    def spans(self, row_tokens: int) -> int:
        """The spans that they are in."""
        out = self.tokens(row_tokens)
        return max(1, min(round(out / self.mean), row_tokens - out))
