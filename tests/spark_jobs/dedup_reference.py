"""Deduplication by a plain program: every pair looked at, no engine, no blocks. For a few hundred documents."""

from __future__ import annotations

from typing import Any

from dataeng.dedup import Config
from dataeng.dedup.decide import rank
from dataeng.dedup.minhash import bands, shingles
from dataeng.dedup.normalise import exact_hash

Decision = tuple[
    str, str | None, str | None, str | None, float | None
]  # table, rule, duplicate_of, matched, similarity


def neighbours(texts: dict[str, str], config: Config) -> dict[str, dict[str, float]]:
    """For each id those that share a band with it and reach the threshold, with their Jaccard."""
    sets = {name: set(shingles(text, config.shingle_words).tolist()) for name, text in texts.items()}
    sets = {name: values for name, values in sets.items() if len(values) >= config.minimum_shingles}
    signed = {name: bands(shingles(texts[name], config.shingle_words), config).tolist() for name in sets}
    near: dict[str, dict[str, float]] = {name: {} for name in texts}
    for one in sets:
        for other in sets:
            if one != other and any(a == b for a, b in zip(signed[one], signed[other], strict=True)):
                jaccard = len(sets[one] & sets[other]) / len(sets[one] | sets[other])
                if jaccard >= config.threshold:
                    near[one][other] = jaccard
    return near


def reach(start: str, near: dict[str, dict[str, float]]) -> set[str]:
    """All ids that a chain of neighbours leads to."""
    found, todo = {start}, [start]
    while todo:
        news = near[todo.pop()].keys() - found
        found |= news
        todo += news
    return found


def deduplicate(rows: list[dict[str, Any]], config: Config) -> dict[str, Decision]:
    """What becomes of each row, by its row_hash (rows of one id and hash: the last word is the kept one's)."""
    order = sorted(rows, key=lambda row: (row["file"] or "", row["offset"] or -1, row["row_hash"]))
    firsts: dict[str, dict[str, Any]] = {}
    for row in order:
        firsts.setdefault(row["id"], row)
    groups: dict[bytes, list[dict[str, Any]]] = {}
    for row in sorted(firsts.values(), key=lambda row: (rank(row, config.keep), row["id"])):
        groups.setdefault(exact_hash(row["text"] or ""), []).append(row)
    representative = {row["id"]: group[0]["id"] for group in groups.values() for row in group}
    near = neighbours({group[0]["id"]: group[0]["text"] or "" for group in groups.values()}, config)
    survivor = {
        name: min(reach(name, near), key=lambda other: (rank(firsts[other], config.keep), other)) for name in near
    }
    found: dict[str, Decision] = {}
    for row in reversed(order):
        name, stands = row["id"], representative[row["id"]]
        last = survivor[stands]
        if row is not firsts[name]:
            found[row["row_hash"]] = ("dropped", "duplicate_id", last, name, None)
        elif name != stands:
            found[row["row_hash"]] = ("dropped", "exact", last, stands, 1.0)
        elif name != last:
            value, matched = min((-jaccard, other) for other, jaccard in near[name].items())
            found[row["row_hash"]] = ("dropped", "near_duplicate", last, matched, round(-value, 6))
        else:
            found[row["row_hash"]] = ("kept", None, None, None, None)
    return found
