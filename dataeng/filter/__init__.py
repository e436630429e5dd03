"""Which documents stay: rules by name, each scoring and then deciding, or changing the text.

A rule is a module here with ``class Config(Table)`` and pure functions:

- ``scores(document, config) -> dict[str, float]`` and ``decide(scores, config) -> Verdict``, with
  ``limits(config)`` naming the bounds that it decides by, in their published order; or
- ``transform(document, config) -> Document``, which changes the text, counts, and never drops; or
  both, the transform first.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar

from pydantic import Field

from dataeng.document import Document, to_dropped, to_row
from dataeng.filter import personal_data
from dataeng.filter.bounds import Limit
from dataeng.recipe import Rules, Table, runtime


class Config(Rules):
    """Table `filter`: the rules by name, and a table of its own for each."""

    version: ClassVar[int] = 1
    package: ClassVar[str] = "dataeng.filter"

    input: list[str] | str = Field(["extract"], description="Stages whose kept documents are filtered")
    rules: list[str] = Field(
        ["language", "gopher", "fineweb", "toxicity", "personal_data"],
        description="Rules in the order they run; once one drops, the later ones are not run",
    )
    keep_raw: bool = Field(False, description="Keep dropped documents as they came, personal data unmasked")
    slice_bytes: int = runtime(1 << 30, ge=1, description="Input files are cut into slices of about this size, bytes")

    def parts(self) -> Iterator[tuple[str, Table]]:
        """The tables inside, and how dropped texts are masked where no table says it."""
        yield from super().parts()
        if not self.keep_raw and not hasattr(self, "personal_data"):
            yield "personal_data", personal_data.Config.model_validate({})

    def files(self) -> list[str]:
        """The files that the tables of the rules in use name."""
        return [path for name in self.rules for path in getattr(self, name).files()]


def module(name: str) -> ModuleType:
    """The module of a rule."""
    return importlib.import_module(f"{Config.package}.{name}")


def limits(config: Config) -> list[Limit]:
    """Every bound of the config's rules, in order (for reports)."""
    found = [(module(name), getattr(config, name)) for name in config.rules]
    return [limit for rule, table in found if hasattr(rule, "limits") for limit in rule.limits(table)]


def apply(document: Document, config: Config, stage: str = "filter") -> dict[str, Any]:
    """The document's row: kept with its scores, or dropped by the first rule that says so.

    A dropped document keeps its text as it entered, with personal data masked unless ``keep_raw``,
    and the language, the scores and what rules added to its metadata.
    """
    entered = document
    for name in config.rules:
        rule, table = module(name), getattr(config, name)
        if hasattr(rule, "transform"):
            document = rule.transform(document, table)
        if not hasattr(rule, "scores"):
            continue
        scores = rule.scores(document, table)
        document = replace(document, scores=document.scores | scores)
        verdict = rule.decide(scores, table)
        if not verdict.keep:
            return to_dropped(_as_entered(entered, document, config), stage, verdict)
    return to_row(document)


def _as_entered(entered: Document, now: Document, config: Config) -> Document:
    document = replace(
        entered,
        language=now.language,
        language_score=now.language_score,
        scores=now.scores,
        metadata=now.metadata | entered.metadata,
    )
    if config.keep_raw:
        return document
    table = getattr(config, "personal_data", None) or personal_data.Config.model_validate({})
    return personal_data.transform(document, table)
