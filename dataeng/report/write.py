"""Puts the report together: summary.json, report.html and the table that a run ends with."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dataeng import storage
from dataeng.recipe import Recipe
from dataeng.report import charts
from dataeng.report.charts import Series
from dataeng.report.collect import summary
from dataeng.report.table import print_table

log = logging.getLogger("millrace")
_MAIN_CURVES = ("loss", "validation_loss")


def main(recipe: Recipe) -> None:
    """Write ROOT/report.html and ROOT/summary.json, print the table and where the report stands."""
    found = summary(recipe)
    page, numbers = storage.join(recipe.root, "report.html"), storage.join(recipe.root, "summary.json")
    storage.write_bytes(numbers, (json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode())
    storage.write_bytes(page, html(found).encode())
    print_table(found)
    print(f"report: {page}")


def html(found: dict[str, Any]) -> str:
    """The summary as one page that needs nothing else; all texts in it are escaped."""
    environment = Environment(
        loader=PackageLoader("dataeng.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": charts.short, "seconds": seconds, "json": _json, "percent": percent}
    environment.globals |= {"histogram": charts.histogram, "main_curve": main_curve, "side_curves": side_curves}
    environment.globals |= {"tiles": tiles(found)}
    return environment.get_template("template.html").render(s=found)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def seconds(value: float | None) -> str:
    """A duration as people say it: 4.2 s, 3 min 7 s, 2 h 5 min."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def percent(value: float | None) -> str:
    """A share of 1 as a percentage with one decimal."""
    return "–" if value is None else f"{100 * value:.1f} %"


def main_curve(one: dict[str, Any]) -> Markup:
    """Loss over steps: what was measured, smoothed, and the validation's."""
    loss = one["curves"].get("loss", [])
    series = [Series("loss", loss, "raw"), Series("smoothed", charts.smoothed(loss), "one")]
    series.append(Series("validation loss", one["curves"].get("validation_loss", []), "two", dots=True))
    return charts.lines(series, f"loss of {one['name']} over steps")


def side_curves(one: dict[str, Any]) -> list[tuple[str, Markup]]:
    """Every other curve of a step, each as a small chart with its name."""
    others = [(key, points) for key, points in one["curves"].items() if key not in _MAIN_CURVES]
    charted = []
    for key, points in others:
        series = [Series(key, points, "raw"), Series(key, charts.smoothed(points), "one")]
        charted.append((key, charts.lines(series if len(points) > 30 else series[:1], f"{key} over steps", 230, 110)))
    return [(key, chart) for key, chart in charted if chart]


def tiles(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The headline numbers: label, value, remark."""
    shown: list[tuple[str, str, str]] = []
    if found.get("documents"):
        total = found["documents"]
        shown.append(("documents in", f"{total['in']:,}", ""))
        shown.append(("documents kept", f"{total['kept']:,}", percent(total["kept"] / max(total["in"], 1))))
    counts: dict[str, int] = next((one["counts"] for one in found.get("tokens", []) if one["kind"] == "tokens"), {})
    if counts.get("train_tokens"):
        remark = f"from {counts['train_documents']:,} documents" if "train_documents" in counts else ""
        shown.append(("training tokens", charts.short(counts["train_tokens"]), remark))
    models: Sequence[dict[str, Any]] = found.get("evaluation", {}).get("models", [])
    if models and models[0].get("perplexity") is not None:
        shown.append(("perplexity", charts.short(models[0]["perplexity"]), f"after {models[0]['model']}"))
    for model in models[1:]:
        accuracy = model["tasks"].get("greedy", {}).get("accuracy")
        if accuracy is not None:
            shown.append(("task accuracy", percent(accuracy), f"after {model['model']}, greedy"))
    shown.append(("time", seconds(sum(step["seconds"] for step in found.get("steps", []))), "all steps"))
    return shown
