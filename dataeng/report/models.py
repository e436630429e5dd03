"""What the report says of models: token counts, curves, the sweep, accuracy before and after each step."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from dataeng import storage
from dataeng.recipe import Recipe
from dataeng.report import Config
from dataeng.runs import Published

log = logging.getLogger("millrace")
_BY_SOURCE = "validation_loss/"  # before a source's name
_BOOKKEEPING = ("step", "position", "weight", "skipped", "seconds", "per_second", "loss_scale")


def curves(recipe: Recipe, names: Sequence[str], config: Config) -> list[dict[str, Any]]:
    """The curves of every step that has left a ``metrics.jsonl``: points thinned by averaging neighbours."""
    found = []
    for name in names:
        rows = _metrics(storage.join(recipe.root, name, "metrics.jsonl"))
        if not rows:
            continue
        keys = sorted({key for row in rows for key in row} - set(_BOOKKEEPING))
        series = {
            key: _thinned([(row["step"], row[key]) for row in rows if _number(row.get(key))], config) for key in keys
        }
        last = {key: points[-1][1] for key in keys if (points := [(0, r[key]) for r in rows if _number(r.get(key))])}
        one = {"name": name, "kind": recipe.kind(name), "steps": rows[-1]["step"], "last": last}
        sources = {
            key.removeprefix(_BY_SOURCE): last[key] for key in keys if key in last and key.startswith(_BY_SOURCE)
        }
        one["by_source"] = sources if len(sources) > 1 else {}
        found.append(one | {"first_loss": rows[0].get("loss"), "curves": {k: v for k, v in series.items() if v}})
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _metrics(path: str) -> list[dict[str, Any]]:
    try:
        lines = storage.read_bytes(path).decode().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            log.warning("%s: line %d is not JSON (cut short?); left out", path, number)
            continue
        if isinstance(row, dict) and _number(row.get("step")):
            rows.append(row)
    return rows


def _thinned(points: list[tuple[float, float]], config: Config) -> list[list[float]]:
    size = max(1, math.ceil(len(points) / config.curve_points))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [[group[-1][0], float(f"{sum(v for _, v in group) / len(group):.6g}")] for group in groups]


def tokens(stages: Sequence[Published], recipe: Recipe) -> list[dict[str, Any]]:
    """The counts of the tokenizer and of the token shards; of a tokenizer also its tokens a word by language."""
    found = []
    for stage in stages:
        if recipe.kind(stage.name) in ("tokenizer", "tokens"):
            plain = {
                key: value for key, value in stage.manifest.details.items() if isinstance(value, str | int | float)
            }
            facts = {"counts": stage.manifest.counts, "details": plain}
            facts["fertility"] = stage.manifest.details.get("fertility", {})
            found.append({"name": stage.name, "kind": recipe.kind(stage.name), **facts})
    return found


def sweep(stages: Sequence[Published], recipe: Recipe) -> list[dict[str, Any]]:
    """The trials of each sweep, best first, and the winner."""
    found = []
    for stage in stages:
        details = stage.manifest.details
        if recipe.kind(stage.name) == "tune" and details.get("trials"):
            sign = -1 if details.get("mode") == "max" else 1
            trials = sorted(details["trials"], key=lambda trial: _rank(trial, sign))
            keys = sorted({key for trial in trials for key in trial["config"]})
            found.append({"name": stage.name, **details, "trials": trials, "keys": keys})
    return found


def _rank(trial: dict[str, Any], sign: int) -> tuple[bool, int, float]:
    """Trials that went furthest first (fewer steps are no fair comparison), then the better; failed ones last."""
    value = trial.get("metric")
    return not _number(value), -int(trial.get("steps") or 0), sign * float(value or 0.0) if _number(value) else 0.0


def evaluation(stages: Sequence[Published], recipe: Recipe) -> dict[str, Any]:
    """Perplexity and task accuracy of each model, in the order in which the models were made."""
    order = [stage.name for stage in stages]
    models: dict[str, dict[str, Any]] = {}
    baseline = ""
    for stage in stages:
        if recipe.kind(stage.name) == "evaluate":
            baseline = str(stage.manifest.config.get("baseline", "sft"))
            models |= stage.manifest.details.get("models", {})
    names = sorted(models, key=lambda name: (order.index(name) if name in order else len(order), name))
    kinds = {k for m in models.values() for task in (m.get("tasks") or {}).values() for k in task.get("by_kind", {})}
    rows = []
    for name in names:
        model = models[name]
        facts = {"perplexity": model.get("perplexity"), "tasks": model.get("tasks") or {}}
        rows.append({"model": name, **facts, "difference": model.get("difference") or {}})
    return {"models": rows, "kinds": sorted(kinds), "baseline": baseline} if rows else {}


def answers(stages: Sequence[Published], recipe: Recipe, limit: int) -> list[dict[str, Any]]:
    """Sample prompts with every model's answer side by side; prompts that all models were given come first."""
    rows: dict[str, dict[str, Any]] = {}
    for stage in stages:
        if recipe.kind(stage.name) != "evaluate":
            continue
        for model, facts in stage.manifest.details.get("models", {}).items():
            for sample in facts.get("samples") or []:
                prompt = str(sample.get("prompt", sample.get("instruction", "")))
                row = rows.setdefault(prompt, {"prompt": prompt, "answers": {}})
                row |= {key: sample[key] for key in ("kind", "expected") if key in sample}
                answer = {"text": str(sample.get("output", "")), "correct": sample.get("correct")}
                row["answers"][model] = answer | {"sampled": sample.get("sampled")}
    return sorted(rows.values(), key=lambda row: -len(row["answers"]))[:limit]
