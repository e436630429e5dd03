"""What the report says of documents: the funnel, scores with thresholds, examples, duplicates, contamination.

Everything is read from manifests and published tables; samples are bounded and depend on ids alone.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dataeng import runs
from dataeng.filter import bounds, personal_data
from dataeng.report import Config
from dataeng.runs import Published

BINS = 36
_MASKING = personal_data.Config.model_validate({})
_FILES_FACTOR = 20  # of the sample's rows are looked at before whole files are left out
_RAW = ("extract", "ingest")  # their texts have not been masked yet: never shown
_SHOWN = ["id", "url", "text", "rule", "score", "threshold", "bound", "duplicate_of", "matched", "similarity"]


def is_raw(stage: Published) -> bool:
    """Whether a stage read raw files, whatever its table is called: such stages count what they read of each."""
    return stage.name in _RAW or "captures" in stage.manifest.tables


def funnel(stages: Sequence[Published]) -> list[dict[str, Any]]:
    """Documents in, kept and dropped by rule of each stage, in order."""
    rows = []
    for stage in stages:
        manifest, tables = stage.manifest, stage.document_tables()
        left = {name: manifest.tables[name].rows for name in tables if name != "dropped"}
        counts = {"kept": sum(left.values()), "dropped": 0} | manifest.counts
        row = {"stage": stage.name, "in": counts["kept"] + counts["dropped"], **counts, "tables": left}
        rows.append(row | {"dropped_by": manifest.dropped_by, "nondeterministic": manifest.nondeterministic})
    return rows


def totals(stages: Sequence[Published], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Documents that came in at the sources, what was left of them at the end, and why the others went."""
    if not rows:
        return {}
    names = {stage.name for stage in stages}
    sources = {stage.name for stage in stages if not names & set(runs.input_names(stage))}
    reasons = [{"stage": r["stage"], "rule": rule, "count": n} for r in rows for rule, n in r["dropped_by"].items()]
    reasons.sort(key=lambda reason: -reason["count"])
    came = sum(row["in"] for row in rows if row["stage"] in sources)
    return {"in": came, "kept": rows[-1]["kept"], "dropped": sum(r["dropped"] for r in rows), "dropped_by": reasons}


def sampled(stage: Published, table: str, columns: Sequence[str], limit: int) -> Iterator[dict[str, Any]]:
    """At most about ``limit`` rows of a table, chosen by their ids (which are hashes)."""
    files = stage.manifest.tables[table].files
    total = sum(file.rows for file in files)
    every_file = max(1, math.ceil(total / (limit * _FILES_FACTOR)))
    chosen = files[::every_file]
    every = max(1, math.ceil(sum(file.rows for file in chosen) / limit))
    data = stage.dataset(table, [f"{stage.folder.rstrip('/')}/{file.path}" for file in chosen])
    present = [name for name in columns if name in data.schema.names]
    for batch in data.to_batches(columns=present, batch_size=4096):
        for row in runs.to_rows(batch):
            if every == 1 or int(row["id"][:8], 16) % every == 0:
                yield row


def distributions(stage: Published, limits: Sequence[bounds.Limit], limit: int) -> list[dict[str, Any]]:
    """For every score of a stage: its histogram over kept and dropped documents, and its thresholds.

    ``limits`` are the bounds of the stage's config; those that dropped rows name are added.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"kept": [], "dropped": []})
    limits_of: dict[str, set[tuple[str, float]]] = defaultdict(set)
    fallen: Counter[str] = Counter()
    for one in limits:
        limits_of[one.score].add((one.bound, float(one.threshold)))
    for table in [name for name in ("kept", "dropped") if name in stage.document_tables()]:
        for row in sampled(stage, table, ["id", "scores", "rule", "threshold", "bound"], limit):
            for name, value in row.get("scores", {}).items():
                values[name][table].append(value)
            if row.get("rule") and row.get("threshold") is not None:
                name = score_of(row["rule"])
                limits_of[name].add((row["bound"] or "", row["threshold"]))
                fallen[name] += 1
    found = [
        {"stage": stage.name, "score": name, "dropped": fallen[name], **_histogram(both, sorted(limits_of[name]))}
        for name, both in values.items()
    ]
    return sorted(found, key=lambda one: (-one["dropped"], one["score"]))


def score_of(rule: str) -> str:
    """The score that a rule decides by, its bound left out."""
    return rule.removesuffix(".min").removesuffix(".max")


def _histogram(values: dict[str, list[float]], bounds: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Equal bins from the 0.5th to the 99.5th percentile and thresholds within reach; the end bins hold the rest."""
    everything = np.array([v for part in values.values() for v in part if math.isfinite(v)])
    low, high = (float(v) for v in np.quantile(everything, [0.005, 0.995])) if len(everything) else (0.0, 1.0)
    reach = (high - low) or 1.0
    near = [limit for _, limit in bounds if low - reach <= limit <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = {name: np.histogram(np.clip(part, low, high), edges)[0].tolist() for name, part in values.items()}
    quantiles = np.quantile(everything, [0.05, 0.5, 0.95]).round(6).tolist() if len(everything) else []
    return {
        "thresholds": [{"bound": bound, "value": limit} for bound, limit in bounds],
        "edges": [round(float(edge), 6) for edge in (edges[0], edges[-1])],
        "counts": counts,
        "sampled": len(everything),
        "total": round(float(everything.sum()), 6),
        "quantiles": quantiles,
    }


def examples(stage: Published, config: Config) -> list[dict[str, Any]]:
    """For each rule that dropped documents: the examples with the smallest ids, text shortened and masked."""
    if "dropped" not in stage.document_tables() or not config.examples:
        return []
    chosen: dict[tuple[str, str], list[str]] = defaultdict(list)
    wanted = config.sample * 5
    for row in sampled(stage, "dropped", ["id", "rule", "bound"], wanted):
        chosen[(row["rule"] or "", row.get("bound") or "")].append(row["id"])
    least = {key: heapq.nsmallest(config.examples, set(ids)) for key, ids in chosen.items()}
    columns = [name for name in _SHOWN if name != "text" or not is_raw(stage)]
    ids = [identifier for some in least.values() for identifier in some]
    rows = {row["id"]: row for row in runs.rows_where(stage, "dropped", "id", ids, columns)}
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (rule, _), some in least.items():
        groups[rule] += [example(rows[identifier], config.example_characters) for identifier in some]
    counts = stage.manifest.dropped_by
    order = sorted(groups, key=lambda rule: (-counts.get(rule, 0), rule))
    texts = {rule: any(example.get("text") for example in groups[rule]) for rule in order}
    facts = [{"rule": rule, "count": counts.get(rule, 0), "shows_text": texts[rule]} for rule in order]
    return [{"stage": stage.name, **one, "examples": groups[str(one["rule"])]} for one in facts]


def example(row: dict[str, Any], characters: int) -> dict[str, Any]:
    """A row as it is shown: its text masked and cut to ``characters``, its address masked, absent values left out."""
    text = row.pop("text", None)
    if text is not None:
        masked = " ".join(safe(text[: characters * 4 + 200]).split())
        row["text"] = masked[:characters] + (" …" if len(masked) > characters or len(text) > len(masked) + 400 else "")
    row["url"] = safe_url(row.get("url"))
    return {key: value for key, value in row.items() if value is not None}


def safe(text: str) -> str:
    """Text with personal data masked (again): a recipe may leave that rule out, a report may not."""
    return personal_data.mask(text, _MASKING)[0]


def safe_url(url: str | None) -> str:
    """An address with personal data in it masked."""
    return personal_data.mask_url(url or "", _MASKING)


def duplicates(stage: Published, config: Config) -> dict[str, Any]:
    """Removed documents by kind, the largest clusters, and how similar those removed were to their match."""
    sizes: Counter[str] = Counter()
    similarities: list[float] = []
    for batch in stage.dataset("dropped").to_batches(columns=["duplicate_of", "similarity"]):
        for row in runs.to_rows(batch):
            if row["duplicate_of"]:
                sizes[row["duplicate_of"]] += 1
                similarities.append(row["similarity"] if row["similarity"] is not None else 1.0)
    largest = heapq.nsmallest(config.clusters, sizes.items(), key=lambda item: (-item[1], item[0]))
    ids = [identifier for identifier, _ in largest]
    urls = {r["id"]: r["url"] for r in runs.rows_where(stage, "kept", "id", ids, ["id", "url"])}
    columns = ["id", "url", "rule", "duplicate_of", "similarity"]
    members: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in runs.rows_where(stage, "dropped", "duplicate_of", ids, columns):
        members[row.pop("duplicate_of")].append(row)
    clusters = []
    for identifier, size in largest:
        near = sorted(members[identifier], key=lambda row: (-(row["similarity"] or 1.0), row["id"]))[:5]
        clusters.append({"survivor": identifier, "url": safe_url(urls.get(identifier)), "size": size + 1})
        clusters[-1]["members"] = [row | {"url": safe_url(row["url"])} for row in near]
    below = [s for s in similarities if s < 1]
    edges = [round(float(e), 3) for e in np.linspace(min(below, default=0.5), 1, 26)]
    counts = np.histogram(below, edges)[0].tolist() if below else []
    histogram = {"edges": [edges[0], 1.0], "counts": {"dropped": counts}, "thresholds": []}
    by_size = Counter(value + 1 for value in sizes.values())
    total = {"clusters": len(sizes), "removed": sum(sizes.values()), "by_size": dict(sorted(by_size.items()))}
    return total | {"largest": clusters, "similarity": histogram, "below_one": len(below)}


def contamination(stage: Published) -> dict[str, Any]:
    """Documents that held evaluation items, by set; the sets as the step counted them, and what else it says."""
    sets: Counter[str] = Counter()
    items: Counter[str] = Counter()
    if "dropped" in stage.document_tables():
        for batch in stage.dataset("dropped").to_batches(columns=["matched"]):
            for row in runs.to_rows(batch):
                if row["matched"]:
                    items[row["matched"]] += 1
                    sets[re.split(r"[#/:\s]", row["matched"])[0]] += 1
    counted = {name: facts for name, facts in stage.manifest.details.get("sets", {}).items() if "documents" in facts}
    return {
        "documents": sum(sets.values()),
        "cut": sum(facts["cut"] for facts in counted.values()),
        "items": sum(facts["found"] for facts in counted.values()) if counted else len(items),
        "by_set": {name: facts["dropped"] for name, facts in counted.items()} or dict(sets.most_common()),
        "sets": counted,
        "details": {key: value for key, value in stage.manifest.details.items() if key != "sets"},
    }
