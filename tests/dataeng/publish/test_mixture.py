"""Splits and mixtures: shares met, nothing moved by a second crawl, budgets kept."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from dataeng.cli import UserError
from dataeng.document import Document, to_batch, to_row
from dataeng.publish import Config
from dataeng.publish.groups import Target, targets
from dataeng.publish.mixture import (
    BUCKETS,
    Quota,
    bucket_of,
    copies_and_rest,
    given,
    measure,
    place,
    split_of,
)
from dataeng.recipe import Recipe

CLUSTERS = [f"{k:032x}" for k in range(20_000)]


def test_splits_have_their_shares() -> None:
    config = Config(validation=0.1, test=0.05)
    splits = [split_of(cluster, 1, config) for cluster in CLUSTERS]
    for name, share in (("validation", 0.1), ("test", 0.05), ("train", 0.85)):
        error = math.sqrt(share * (1 - share) * len(CLUSTERS))
        assert abs(splits.count(name) - share * len(CLUSTERS)) < 4 * error
    assert [split_of(c, 2, config) for c in CLUSTERS[:500]] != splits[:500]


def test_buckets_are_even_and_have_nothing_to_do_with_splits() -> None:
    config = Config(validation=0.5, test=0.0)
    half = [bucket_of(c, 1) < BUCKETS // 2 for c in CLUSTERS]
    both = [h and split_of(c, 1, config) == "train" for h, c in zip(half, CLUSTERS, strict=True)]
    assert abs(sum(half) - 10_000) < 4 * math.sqrt(5_000)
    assert abs(sum(both) - 5_000) < 4 * math.sqrt(3_750)


def test_the_same_text_stays_in_its_split_whatever_its_id() -> None:
    config = Config(validation=0.4, test=0.3)
    for text in ("one text", "another", "a third", "x" * 50):
        rows = [to_row(Document(id=name, text=t)) for name, t in (("a", text), ("b", f" {text}\n"))]
        assert len({place(row, config, 0, {})["table"] for row in rows}) == 1


def test_a_cluster_stays_in_its_split_whoever_survives() -> None:
    config = Config(validation=0.4, test=0.3)
    for cluster in CLUSTERS[:50]:
        rows = [to_row(Document(id=n, text=n, metadata={"cluster": cluster})) for n in ("one", "two")]
        assert len({place(row, config, 0, {})["table"] for row in rows}) == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"books": 100.0, "crawl": 900.0}),
        ({"weights": {"books": 1, "crawl": 1}}, {"books": 100.0, "crawl": 100.0}),
        ({"weights": {"books": 1, "crawl": 1}, "maximum_repetitions": 4}, {"books": 400.0, "crawl": 400.0}),
        ({"weights": {"books": 0, "crawl": 2}}, {"books": 0.0, "crawl": 900.0}),
        ({"tokens": {"books": 10, "crawl": 50}}, {"books": 40.0, "crawl": 200.0}),
        ({"tokens": {"books": 100, "crawl": 50}, "short": "allow"}, {"books": 100.0, "crawl": 200.0}),
        ({"tokens": {"books": 35, "crawl": 50}, "maximum_repetitions": 1.5}, {"books": 140.0, "crawl": 200.0}),
    ],
)
def test_wanted_units(settings: dict[str, Any], expected: dict[str, float]) -> None:
    found = targets({"books": 100, "crawl": 900}, Config(**settings))
    assert {label: target.wanted for label, target in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("asked", [{"books": 1}, {"books": 1, "crawl": 1, "code": 1}])
def test_sources_and_shares_must_name_each_other(asked: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"publish\.weights.*(crawl|code)"):
        targets({"books": 100, "crawl": 900}, Config(weights=asked))


@pytest.mark.parametrize(("wanted", "copies", "rest"), [(0, 0, 0), (30, 0, 30), (100, 1, 0), (250, 2, 50)])
def test_copies_and_rest(wanted: float, copies: int, rest: float) -> None:
    assert copies_and_rest(wanted, 100) == (copies, rest)


def test_quota_cuts_and_repeats() -> None:
    config = Config(validation=0, test=0)
    row = to_row(Document(id="a", text="t", source="s", metadata={"cluster": "c"}))
    bucket = bucket_of("c", 0)
    left_out = place(row, config, 0, {"s": Quota(0, bucket)})
    assert (left_out["table"], left_out["rule"]) == ("dropped", "mixture")
    assert left_out["score"] >= left_out["threshold"]
    assert place(row, config, 0, {"s": Quota(0, bucket + 1)})["metadata"] == {"cluster": "c"}
    assert place(row, config, 0, {"s": Quota(2, bucket + 1)})["metadata"]["repeat"] == "3"
    everywhere = Config(validation=0.999, test=0)
    assert "repeat" not in place(row, everywhere, 0, {"s": Quota(2, 0)})["metadata"]


def test_measures() -> None:
    rows = [to_row(Document(id="a", text="zwei Wörter", source="s"))]
    for unit, units in (("bytes", 12), ("words", 2)):
        found = next(measure([to_batch(rows)], Config(unit=unit), 0)).to_pylist()[0]
        assert (found["source"], found["documents"], found["units"], found["bytes"]) == ("s", 1, units, 12)


def test_given_sums_over_splits() -> None:
    more = {"group": "s", "source": "s", "language": "en"}
    totals = [{**more, "split": n, "documents": 2, "units": 40, "bytes": 40} for n in ("train", "test")]
    found = given(totals, {"s": Target(100.0, 90.0), "t": Target(8.0, 8.0)}, {"s": 120, "t": 40}, Config())
    assert found == {
        "s": {"documents": 4, "tokens": 20, "asked": 25, "available": 30},
        "t": {"documents": 0, "tokens": 0, "asked": 2, "available": 10},
    }


@pytest.mark.parametrize(
    "values",
    [
        {"validation": 0.6, "test": 0.4},
        {"weights": {"a": 1}, "tokens": {"a": 1}},
        {"weights": {"a": -1}},
        {"weights": {"a": 0}},
        {"tokens": {"a": math.inf}},
        {"unit": "characters"},
        {"maximum_repetitions": 0.5},
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(**values)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({}, "dedup"),
        ({"filter": {}, "dedup": {}}, "dedup"),
        ({"dedup": {}, "passages": {}}, "passages"),
        ({"semantic": {}, "passages": {}, "dedup": {}}, "semantic"),
        ({"augment": {}, "semantic": {}, "dedup": {}, "publish": {"validation": 0.1}}, "augment"),
        ({"semantic": {}, "publish": {"input": ["filter"]}}, ["filter"]),
    ],
)
def test_the_input_is_the_last_step_that_the_recipe_has(tables: dict[str, Any], expected: object) -> None:
    assert Recipe("r.toml", "root", 0, tables).step("publish").input == expected
