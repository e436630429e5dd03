"""Deduplication: equal texts first, then near-duplicates found by MinHash and verified by exact Jaccard.

What is computed for a document or a group of them stands here; the joins stand in ``spark_jobs``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from dataeng.recipe import Table, runtime


class Config(Table):
    """Table `dedup`. The defaults are the field's: 5-word shingles, 112 permutations as 14 bands of 8 rows.

    Of D documents about D^2 / 2 x bands / 2^hash_bits pairs share a band's hash by chance alone: with 32 bits 1,600
    of a million documents and 16 million of a hundred million, with 64 none. They cost a comparison each and remove
    nothing, since every pair is verified; 32 bits save 4 bytes for each document and band.
    """

    version: ClassVar[int] = 2

    input: str | list[str] = Field("decontaminate", description="The stage, or stages, whose kept documents come in")
    threshold: float = Field(0.8, gt=0, le=1, description="Jaccard of shingle sets from which two texts are one")
    shingle_words: int = Field(5, ge=1, le=50, description="Words a shingle (FineWeb: 5)")
    bands: int = Field(14, ge=1, le=256, description="Bands of a signature (FineWeb: 14)")
    rows: int = Field(8, ge=1, le=64, description="MinHash values a band (FineWeb: 8)")
    permutations: int | None = runtime(
        None, ge=1, description="MinHash values a signature, if written down: must be bands x rows"
    )
    hash_bits: Literal[32, 64] = Field(
        64, description="Bits of a band's hash; 32 halve what is kept and shuffled of signatures (see below)"
    )
    hash_seed: int = Field(1, ge=0, lt=1 << 63, description="Seed of the permutations; signatures follow from it")
    against: list[str] = Field(
        [], description="Roots of earlier runs: documents that these have (kept or not) are removed from this one"
    )
    minimum_shingles: int = Field(20, ge=1, description="Distinct shingles under which only equal texts count")
    keep: str = Field("longest", description="Who survives: longest, earliest or highest:SCORE; ties by least id")
    block_documents: int = Field(
        128, ge=2, le=4096, description="Documents of a band that are compared all with all; larger bands go by rounds"
    )
    max_rounds: int = Field(5, ge=1, description="Rounds for larger bands; those unfinished count as bands_cut_off")

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: str) -> str:
        if value in ("longest", "earliest") or (value.startswith("highest:") and len(value) > len("highest:")):
            return value
        raise ValueError("must be longest, earliest or highest:SCORE, such as highest:quality")

    @field_validator("input")
    @classmethod
    def _once(cls, value: str | list[str]) -> str | list[str]:
        """A stage named twice is read once."""
        return value if isinstance(value, str) else list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _signatures(self) -> Config:
        if self.permutations not in (None, self.bands * self.rows):
            raise ValueError(
                f"permutations = {self.permutations} is not bands x rows = {self.bands} x {self.rows} = "
                f"{self.bands * self.rows}: change one of the three, or leave permutations out"
            )
        return self

    @model_validator(mode="after")
    def _inputs(self) -> Config:
        if not self.input:
            raise ValueError("input names no stage")
        if len({root.rstrip("/") for root in self.against}) < len(self.against):
            raise ValueError("against names a run twice")
        if "#" in "".join(self.against):
            raise ValueError("against: a root's name must not hold #, which stands between it and an id")
        return self

    def parameters(self) -> dict[str, object]:
        """What signatures follow from: those of two runs can be compared where these are equal."""
        from dataeng.dedup import normalise

        return {
            "normalisation": normalise.VERSION,
            "unicode": normalise.UNICODE,
            "shingle_words": self.shingle_words,
            "bands": self.bands,
            "rows": self.rows,
            "hash": "polynomial of word hashes mod 2^64, splitmix64; permutations a x + b mod 2^64",
            "hash_bits": self.hash_bits,
            "hash_seed": self.hash_seed,
        }


def score_of(keep: str) -> str | None:
    """The score that a rule of survival names, or None where it goes by something else."""
    return keep.removeprefix("highest:") if keep.startswith("highest:") else None
