"""Which group a document belongs to, and how much is asked of each: by source, language and quality.

A group's name joins the values of the dimensions in ``publish.by``, such as ``web/en/2``. What the recipe asks
for stands under such names, or under one with ``*`` for any value: that key covers every group which it matches
and no key with fewer ``*`` does. Its languages share what it gets in proportion to (what they have)^alpha
(arXiv 1911.02116, 2010.11934); inside a language all in proportion to what they have. Where a group would be
repeated too often, the others share the rest (arXiv 2304.09151).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dataeng.cli import UserError
from dataeng.document import Document
from dataeng.publish import Config, Order

UNKNOWN = "unknown"  # the language of documents that no rule gave one; the quality of those without the score
ANY = "*"


class Target(NamedTuple):
    """A group's units: ``asked`` by the recipe, and ``wanted`` where no group is repeated too often."""

    asked: float
    wanted: float


def quality_of(scores: Mapping[str, float], config: Config) -> str:
    """The number of the range that the score falls into: bounds [0.3, 0.6] make 0 (below 0.3), 1 and 2."""
    score = scores.get(config.quality.score) if config.quality else None
    if config.quality is None or score is None or math.isnan(score):
        return UNKNOWN
    return str(bisect_right(config.quality.bounds, score))


def label_of(document: Document, config: Config) -> str:
    """The name of the document's group."""
    values = {"source": document.source, "language": (document.language or UNKNOWN).replace("/", "-")}
    return "/".join(values[name] if name in values else quality_of(document.scores, config) for name in config.by)


def parts_of(label: str, config: Config) -> list[str]:
    """A group's values in the order of ``by``: only a source's name may hold a slash."""
    parts, place = label.split("/"), config.by.index("source") if "source" in config.by else 0
    end = place + 1 + len(parts) - len(config.by)
    return [*parts[:place], "/".join(parts[place:end]), *parts[end:]]


def _covers(key: str, label: str, config: Config) -> bool:
    pairs = zip(parts_of(key, config), parts_of(label, config), strict=True)
    return key == label or all(wanted in (ANY, value) for wanted, value in pairs)


def covered(labels: Iterable[str], keys: Iterable[str], config: Config) -> dict[str, list[str]]:
    """The groups that each key covers; raises UserError for a key or a group without the other."""
    table, labels = "weights" if config.weights else "tokens", sorted(labels)
    what = "group" if len(config.by) > 1 else config.by[0]
    found: dict[str, list[str]] = {key: [] for key in keys}
    for key in found:
        if not any(_covers(key, label, config) for label in labels):
            raise UserError(f"publish.{table}: no document has the {what} {key!r}; there are: {_names(labels)}")
    for label in labels:
        fitting = [key for key in found if _covers(key, label, config)]
        if not fitting:
            problem = f"does not name the {what} {label!r}: give it a share, or 0 to leave it out"
            raise UserError(f"publish.{table}: {problem}")
        ranks = {key: (key != label, parts_of(key, config).count(ANY)) for key in fitting}
        best = [key for key in fitting if ranks[key] == min(ranks.values())]
        if len(best) > 1:
            raise UserError(f"publish.{table}: {_names(best)} both cover {label!r}: name it by itself")
        found[best[0]].append(label)
    return found


def check_order(order: Order, scores: Sequence[str]) -> None:
    """Raise UserError where no document has the score; ``scores`` are those that some have."""
    if order.score not in scores:
        raise UserError(f"publish.order.score: no document has the score {order.score!r}; there are: {_names(scores)}")


def _names(labels: Iterable[str], most: int = 20) -> str:
    shown = sorted(labels)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(repr(label) for label in shown[:most]) or "none") + more


def _proportions(labels: Iterable[str], available: Mapping[str, int], config: Config) -> dict[str, float]:
    """What the groups of one key share by: they sum to 1 where any of them has text."""
    labels = list(labels)
    if config.language_alpha == 1:
        shares = {label: float(available[label]) for label in labels}
    else:
        place = config.by.index("language")
        language = {label: parts_of(label, config)[place] for label in labels}
        sums: dict[str, int] = {}
        for label in labels:
            sums[language[label]] = sums.get(language[label], 0) + available[label]
        power = {code: units**config.language_alpha if units else 0.0 for code, units in sums.items()}
        shares = {
            label: power[language[label]] * available[label] / sums[language[label]] if available[label] else 0.0
            for label in labels
        }
    total = sum(shares.values())
    return {label: share / total if total else 0.0 for label, share in shares.items()}


def fill(budget: float, shares: Mapping[str, float], most: Mapping[str, float]) -> dict[str, float]:
    """The budget by shares, none above its most: what one cannot take goes to the others by their shares."""
    full: dict[str, float] = {}
    while True:
        rest = {label: share for label, share in shares.items() if label not in full}
        left, total = budget - sum(full.values()), sum(rest.values())
        parts = {label: left * share / total if total else 0.0 for label, share in rest.items()}
        over = {label: most[label] for label, units in parts.items() if units > most[label]}
        if not over:
            return full | parts
        full |= over


def _short(key: str, budget: float, most: float, available: float, config: Config) -> str:
    asked, there = (math.floor(units / config.per_token()) for units in (budget, most))
    enough = "" if not available else f" (publish.maximum_repetitions = {math.ceil(budget / available * 10) / 10:g})"
    return (
        f"publish.tokens: {key!r} asks for {asked:,} tokens, but has {there:,} with its repetitions: "
        f'ask for fewer, allow more repetitions{enough} or set publish.short = "allow"'
    )


def targets(available: Mapping[str, int], config: Config) -> dict[str, Target]:
    """The units (bytes or words) to take of each group, of those that it has.

    By weights: shares in proportion, as much in all as the scarcest key allows; where languages share by alpha
    a key is worth what it has once, else that times ``maximum_repetitions``. Raises UserError for a group that
    the recipe names and the data lack or the other way round, and for a budget that cannot be met.
    """
    if not config.mixes():
        return {label: Target(float(units), float(units)) for label, units in available.items()}
    asked = config.weights or {key: tokens * config.per_token() for key, tokens in config.tokens.items()}
    asked = asked or {"/".join([ANY] * len(config.by)): 1.0}
    groups = covered(available, asked, config)
    most = {label: units * config.maximum_repetitions for label, units in available.items()}
    once = available if config.language_alpha < 1 else most
    if not config.tokens:
        worth = {key: float(sum(once[label] for label in labels)) for key, labels in groups.items()}
        for key in (key for key, share in asked.items() if share and not worth[key]):
            raise UserError(f"publish.weights: {key!r} has no text: give it 0 to leave it out")
        total = min(worth[key] / share for key, share in asked.items() if share)
        asked = {key: share * total for key, share in asked.items()}
    found: dict[str, Target] = {}
    for key, labels in groups.items():
        shares, there = _proportions(labels, available, config), sum(most[label] for label in labels)
        if config.short == "refuse" and asked[key] > there * (1 + 1e-9):
            raise UserError(_short(key, asked[key], there, sum(available[label] for label in labels), config))
        units = fill(min(asked[key], there), shares, most)
        found |= {label: Target(asked[key] * shares[label], units[label]) for label in labels}
    return found
