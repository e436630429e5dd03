"""The table that a run ends with, in plain text."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_REASONS = 12


def rows_of(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The table's lines: what, and how much; an empty value heads a section."""
    rows = _documents(found) + _tokens(found) + _models(found)
    steps = found.get("steps", [])
    rows += [("seconds", "")] + [(f"  {step['name']}", f"{step['seconds']:,.1f}") for step in steps]
    return [*rows, ("  together", f"{sum(step['seconds'] for step in steps):,.1f}")]


def _documents(found: dict[str, Any]) -> list[tuple[str, str]]:
    total = found.get("documents")
    if not total:
        return []
    rows = [("documents in", f"{total['in']:,}"), ("documents kept", f"{total['kept']:,}")]
    rows.append(("documents dropped", f"{total['dropped']:,}"))
    reasons = total["dropped_by"]
    rows += [(f"  {reason['stage']}: {reason['rule']}", f"{reason['count']:,}") for reason in reasons[:_REASONS]]
    rest = reasons[_REASONS:]
    if rest:
        rows.append((f"  {len(rest)} other rules", f"{sum(reason['count'] for reason in rest):,}"))
    return rows


def _tokens(found: dict[str, Any]) -> list[tuple[str, str]]:
    shards: dict[str, int] = next((one["counts"] for one in found.get("tokens", []) if one["kind"] == "tokens"), {})
    counted = [(name, count) for name, count in shards.items() if name.endswith("_tokens")]
    total = sum(count for _, count in counted)
    rows = [(f"  {name.removesuffix('_tokens')}", f"{count:,}") for name, count in counted]
    return [("tokens", f"{total:,}"), *rows] if counted else []


def _models(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for one in found.get("training", []):
        value = one["last"].get("validation_loss")
        if value is not None:
            shown = f"{value:,.4f}"
            if one["kind"] == "pretrain":  # the loss of a token, so e to it is the validation perplexity
                shown += f" (perplexity {math.exp(min(value, 50)):,.2f})"
            rows.append((f"  {one['name']}", shown))
            rows += [(f"    {source}", f"{loss:,.4f}") for source, loss in one["by_source"].items()]
    rows = [("validation loss", ""), *rows] if rows else []
    models = found.get("evaluation", {}).get("models", [])
    perplexities = [(f"  {m['model']}", f"{m['perplexity']:,.2f}") for m in models if m.get("perplexity") is not None]
    rows += [("perplexity of the test split", ""), *perplexities] if perplexities else []
    names = sorted({name for model in models for name in model["tasks"]})
    if names:
        rows.append((f"task accuracy ({', '.join(names)})", ""))
        rows += [(f"  after {m['model']}", " / ".join(_accuracy(m["tasks"].get(n)) for n in names)) for m in models]
    for one in found.get("sweeps", []):
        best = one.get("best") or {}
        won = ", ".join(
            f"{key} = {value:.4g}" if isinstance(value, float) else f"{key} = {value}"
            for key, value in best.get("config", {}).items()
        )
        rows.append((f"{one['name']}: best of {len(one['trials'])} trials", won))
    return rows


def _accuracy(task: dict[str, Any] | None) -> str:
    return "–" if not task or task.get("accuracy") is None else f"{task['accuracy']:.3f}"


def print_table(found: dict[str, Any], console: Console | None = None) -> None:
    """Print documents in, kept and dropped by reason, tokens, perplexity, accuracy, seconds."""
    table = Table(title=f"{found['recipe']} → {found['root']}", show_header=False, title_justify="left")
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    for name, value in rows_of(found):
        style = "bold" if not name.startswith(" ") else None
        table.add_row(escape(name), escape(value), style=style)
    (console or Console(highlight=False, soft_wrap=False)).print(table)
