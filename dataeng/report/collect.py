"""The summary: every number of the report, as JSON. Steps that have not run are left out."""

from __future__ import annotations

import math
import platform
from datetime import UTC, datetime
from typing import Any

from dataeng import filter as filters
from dataeng import runs
from dataeng.filter.bounds import Limit
from dataeng.recipe import KeyProblem, Recipe
from dataeng.report import Config, documents, groups, models
from dataeng.runs import Published


def summary(recipe: Recipe) -> dict[str, Any]:
    """What is published under the recipe's root, in numbers; raises UserError where nothing is."""
    config: Config = recipe.step("report")
    stages = runs.published(recipe.root)
    with_documents = [stage for stage in stages if stage.document_tables()]
    names = [stage.name for stage in stages]
    found = {
        "recipe": recipe.path,
        "root": recipe.root,
        "seed": recipe.seed,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "steps": [_step(stage, recipe) for stage in stages],
        **_of_documents(with_documents, recipe, config),
        "tokens": models.tokens(stages, recipe),
        "training": models.curves(recipe, [*names, *(n for n in recipe.tables if n not in names)], config),
        "sweeps": models.sweep(stages, recipe),
        "evaluation": models.evaluation(stages, recipe),
        "answers": models.answers(stages, recipe, config.answers),
        "resolved": _resolved(stages, recipe),
        "versions": _versions(stages),
    }
    return {key: _finite(value) for key, value in found.items() if value not in ([], {}, None)}


def _finite(value: Any) -> Any:
    """The value without NaN and infinities, which JSON does not have: they become null."""
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_documents(stages: list[Published], recipe: Recipe, config: Config) -> dict[str, Any]:
    rows = documents.funnel(stages)
    found: dict[str, Any] = {"documents": documents.totals(stages, rows), "funnel": rows}
    found["scores"], found["examples"], found["duplicates"], found["contamination"] = [], [], {}, {}
    found["groups"], found["borders"] = groups.breakdowns(stages, config) if found["documents"] else {}, []
    for stage in stages:
        kind = recipe.kind(stage.name)
        limits = _limits(stage, recipe) if kind == "filter" else []
        if kind not in ("publish", "extract", "ingest"):
            own = documents.distributions(stage, limits, config.sample)
            known = {one["score"] for one in found["scores"]}  # later stages carry the same scores on
            found["scores"] += [one for one in own if one["score"] not in known]
        found["examples"] += documents.examples(stage, config)
        found["borders"] += groups.borders(stage, limits, config)
        if kind == "dedup" and "dropped" in stage.document_tables():
            found["duplicates"] = documents.duplicates(stage, config)
        if kind == "decontaminate":
            found["contamination"] = documents.contamination(stage)
    found["masked"] = {one["score"]: one for one in found["scores"] if one["score"].startswith("masked.")}
    found["scores"] = [one for one in found["scores"] if one["score"] not in found["masked"]]
    found["masked"] = {name: one["total"] for name, one in found["masked"].items()}
    return found


def _limits(stage: Published, recipe: Recipe) -> list[Limit]:
    """The bounds that a filter ran with; the recipe's where its manifest is of another version."""
    try:
        return filters.limits(filters.Config(**stage.manifest.config))
    except (ValueError, KeyProblem):
        return filters.limits(recipe.step(stage.name))


def _step(stage: Published, recipe: Recipe) -> dict[str, Any]:
    manifest = stage.manifest
    facts = {"name": stage.name, "kind": recipe.kind(stage.name), "seconds": manifest.seconds}
    more = {"counts": manifest.counts, "started": manifest.started, "fingerprint": manifest.fingerprint}
    return facts | more | {"version": manifest.version, "nondeterministic": manifest.nondeterministic}


def _resolved(stages: list[Published], recipe: Recipe) -> dict[str, Any]:
    """The recipe with its defaults: each table as its step ran with it, else as it is written."""
    ran = {stage.name: stage.manifest.config for stage in stages if stage.name in recipe.tables}
    tables = {name: ran.get(name, table) for name, table in recipe.tables.items()}
    return {"root": recipe.root, "seed": recipe.seed} | tables


def _versions(stages: list[Published]) -> dict[str, str]:
    found = {name: version for stage in stages for name, version in stage.manifest.versions.items()}
    return {"python": platform.python_version()} | dict(sorted(found.items()))
