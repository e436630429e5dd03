"""Where documents of each language and host were lost, and which stood next to a threshold, on both its sides."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from dataeng import runs
from dataeng.filter.bounds import Limit
from dataeng.report import Config
from dataeng.report.documents import example, safe, sampled, score_of
from dataeng.runs import Published

OTHERS = "others"
_UNKNOWN = "not known"


def language_of(row: dict[str, Any]) -> str:
    """The language that a row says, or that it says none."""
    return row.get("language") or _UNKNOWN


def host_of(row: dict[str, Any]) -> str:
    """The host of a row's address without its port, or the file that a document without one came from."""
    try:
        host = urlsplit(row.get("url") or "").hostname
    except ValueError:
        host = None
    return host or row.get("file") or _UNKNOWN


KEYS: dict[str, Callable[[dict[str, Any]], str]] = {"language": language_of, "host": host_of}
Counts = dict[str, float]  # documents by the stage that dropped them, or `kept`


def breakdowns(stages: Sequence[Published], config: Config) -> dict[str, dict[str, Any]]:
    """The funnel by language and by host: of each group how many each stage dropped and the last one kept.

    Counts are estimated from a sample of each table where that is larger than ``config.sample`` rows.
    The groups with most documents are named, the others summed.
    """
    counts: dict[str, dict[str, Counts]] = {name: defaultdict(lambda: defaultdict(float)) for name in KEYS}
    exact = True
    for stage in stages:
        last = stage is stages[-1]
        for table in [name for name in stage.document_tables() if name == "dropped" or last]:
            total = stage.manifest.tables[table].rows
            rows = list(sampled(stage, table, ["id", "language", "url", "file"], config.sample))
            exact = exact and len(rows) == total
            for name, key in KEYS.items():
                for group, seen in Counter(map(key, rows)).items():
                    counts[name][group][stage.name if table == "dropped" else "kept"] += seen * total / len(rows)
    columns = [*(stage.name for stage in stages if stage.manifest.counts.get("dropped")), "kept"]
    return {
        name: {"exact": exact, "columns": columns, "rows": _largest(groups, config.groups)}
        for name, groups in counts.items()
    }


def _largest(groups: dict[str, Counts], limit: int) -> list[dict[str, Any]]:
    """The largest groups by name with their counts, then the sum of the rest."""
    order = sorted(groups, key=lambda group: (-sum(groups[group].values()), group))
    named = [(safe(group), groups[group]) for group in order[:limit]]
    rest: Counts = defaultdict(float)
    for group in order[limit:]:
        for key, count in groups[group].items():
            rest[key] += count
    return [
        {"group": group, "documents": round(sum(found.values())), "counts": {k: round(n) for k, n in found.items()}}
        for group, found in [*named, *([(OTHERS, rest)] if rest else [])]
    ]


def borders(stage: Published, limits: Sequence[Limit], config: Config) -> list[dict[str, Any]]:
    """For each bound that dropped documents of the sample: those next to it, kept ones and dropped ones."""
    dropped: dict[Limit, list[tuple[float, str]]] = defaultdict(list)
    kept: dict[Limit, list[tuple[float, str]]] = defaultdict(list)
    if "dropped" not in stage.document_tables() or not config.examples:
        return []
    by_rule = {(limit.score, limit.bound): limit for limit in limits}
    for row in sampled(stage, "dropped", ["id", "rule", "bound", "score"], config.sample):
        limit = by_rule.get((score_of(str(row["rule"])), row["bound"]))
        if limit and row["score"] is not None:
            dropped[limit].append((abs(row["score"] - limit.threshold), row["id"]))
    if dropped and "kept" in stage.document_tables():
        for row in sampled(stage, "kept", ["id", "scores"], config.sample):
            for limit in dropped.keys() & {one for one in by_rule.values() if one.score in row["scores"]}:
                kept[limit].append((abs(row["scores"][limit.score] - limit.threshold), row["id"]))
    least = {
        name: {limit: [i for _, i in heapq.nsmallest(config.examples, found)] for limit, found in sides.items()}
        for name, sides in (("kept", kept), ("dropped", dropped))
    }
    rows = {name: _fetched(stage, name, [i for ids in sides.values() for i in ids]) for name, sides in least.items()}
    return [
        {
            "stage": stage.name,
            **limit._asdict(),
            **{name: [_shown(rows[name][i], limit, config) for i in least[name].get(limit, [])] for name in least},
        }
        for limit in limits
        if limit in dropped
    ]


def _fetched(stage: Published, table: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    if not ids:
        return {}
    return {row["id"]: row for row in runs.rows_where(stage, table, "id", ids, ["id", "url", "text", "scores"])}


def _shown(row: dict[str, Any], limit: Limit, config: Config) -> dict[str, Any]:
    """What is shown of a document beside a threshold: address, value, text shortened and masked."""
    facts = {
        "id": row["id"],
        "url": row.get("url"),
        "text": row.get("text") or "",
        "value": row["scores"].get(limit.score),
    }
    return example(facts, config.example_characters // 2)
