"""Semantic deduplication after SemDeDup (Abbas et al. 2023, arXiv 2303.09540): of documents alike, one stays.

Each document becomes a vector, k-means brings like ones together, and inside a cluster a document goes where one that
ranks before it and stays has a cosine of at least the threshold (SemDeDup's 1 - epsilon). What is computed for a
document or a cluster stands here, the joins in ``spark_jobs/semantic.py``.
"""

from __future__ import annotations

import math
from importlib import metadata
from typing import Any, ClassVar

from pydantic import Field, field_validator

from dataeng import storage
from dataeng.dedup import normalise
from dataeng.recipe import Table, content


class Config(Table):
    """Table `semantic`. Without it in a recipe the step does not run."""

    version: ClassVar[int] = 1
    follows: ClassVar[tuple[str, ...]] = ("passages", "dedup")

    input: str | list[str] = Field(
        "dedup",
        min_length=1,
        description="The stage, or stages, whose kept documents come in; by default the last of dedup and passages "
        "that the recipe has",
    )
    threshold: float = Field(
        0.85,
        gt=0,
        le=1,
        description="Cosine from which two documents are one. Suits hashed words; models of sentences want about 0.95",
    )
    keep: str = Field(
        "longest",
        description="Who ranks first and so stays: longest, earliest, highest:SCORE, or farthest from its cluster's "
        "centre (SemDeDup's); ties by least id",
    )
    model: str | None = content(
        None, description="A sentence-transformers folder on every worker; by default hashed words with their rarity"
    )
    prefix: str = Field("", description="What a model wants before a text (E5: 'passage: ')")
    dimensions: int = Field(256, ge=64, le=1024, multiple_of=64, description="Of a vector of hashed words")
    ngram_words: int = Field(2, ge=1, le=5, description="Runs of up to so many words are hashed, the default embedding")
    clusters: int | None = Field(
        None, ge=1, description="k of k-means; by default documents / 1,000, above a million their square root"
    )
    sample_documents: int | None = Field(
        None, ge=1, description="Documents that k-means sees; by default 40 a cluster, at least 20,000"
    )
    iterations: int = Field(20, ge=1, description="Rounds of k-means at most")
    block_documents: int = Field(
        20_000, ge=2, le=200_000, description="Documents of a cluster compared all with all; larger ones are cut"
    )

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: str) -> str:
        if value in ("longest", "earliest", "farthest") or (value.startswith("highest:") and value != "highest:"):
            return value
        raise ValueError("must be longest, earliest, farthest or highest:SCORE, such as highest:quality")

    @field_validator("model")
    @classmethod
    def _local(cls, value: str | None) -> str | None:
        if value and storage.is_s3(value):
            raise ValueError("must be a folder on the workers' disks: copy it there")
        return value

    def files(self) -> list[str]:
        """The files of the model's folder."""
        if not self.model:
            return []
        return [entry.path for entry in storage.list_files(self.model)] or [self.model]

    def results(self) -> dict[str, Any]:
        """The fields that change results; with a model the libraries that run it, else what a word is."""
        if self.model:
            return super().results() | {
                name: metadata.version(name) for name in ("transformers", "tokenizers", "torch")
            }
        return super().results() | {"normalisation": normalise.VERSION, "unicode": normalise.UNICODE}

    def clusters_for(self, documents: int) -> int:
        """k for so many documents."""
        wanted = self.clusters or min(-(-documents // 1000), math.isqrt(max(0, documents - 1)) + 1)
        return max(1, min(wanted, documents))

    def sample_for(self, clusters: int) -> int:
        """How many documents k-means sees for so many clusters (Faiss wants at least 39 for each)."""
        return self.sample_documents or max(20_000, 40 * clusters)
