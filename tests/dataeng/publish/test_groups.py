"""Groups of documents and what is asked of them: shares met, limits kept, every group named."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dataeng.cli import UserError
from dataeng.document import Document
from dataeng.publish import Config
from dataeng.publish.groups import fill, label_of, parts_of, targets

HAVE = {"web/en": 900_000, "web/de": 90_000, "web/sw": 10_000, "books/en": 200_000, "books/de": 50_000}


def both(**settings: Any) -> Config:
    return Config(by=["source", "language"], **settings)


def wanted(config: Config, have: dict[str, int] = HAVE) -> dict[str, float]:
    return {label: target.wanted for label, target in targets(have, config).items()}


@pytest.mark.parametrize(
    ("score", "expected"),
    [(None, "unknown"), (math.nan, "unknown"), (0.0, "0"), (0.3, "1"), (0.59, "1"), (0.6, "2"), (1.0, "2")],
)
def test_a_document_belongs_to_one_group(score: float | None, expected: str) -> None:
    config = Config(by=["source", "language", "quality"], quality={"score": "quality", "bounds": [0.3, 0.6]})
    scores = {} if score is None else {"quality": score}
    document = Document("a", "t", source="stack/v2", language="en", scores=scores)
    assert label_of(document, config) == f"stack/v2/en/{expected}"
    assert parts_of(f"stack/v2/en/{expected}", config) == ["stack/v2", "en", expected]
    assert label_of(Document("a", "t", source="s"), Config(by=["language", "source"])) == "unknown/s"


def test_the_more_exact_key_wins_and_a_key_shares_as_its_groups_are() -> None:
    found = wanted(both(weights={"web/*": 2, "web/sw": 1, "books/*": 1}))
    assert found["web/sw"] == 10_000  # the scarcest, used up
    assert found["books/en"] + found["books/de"] == pytest.approx(10_000)
    assert found["web/en"] + found["web/de"] == pytest.approx(20_000)
    assert found["web/en"] / found["web/de"] == pytest.approx(10)


def test_budgets_of_groups_are_met_or_refused() -> None:
    found = wanted(both(tokens={"*/*": 100_000, "books/*": 0}))
    assert sum(found.values()) == pytest.approx(400_000)
    assert found["books/en"] == found["books/de"] == 0
    config = {"tokens": {"*/*": 10, "web/sw": 5_001}, "maximum_repetitions": 2}
    with pytest.raises(UserError, match=r"'web/sw' asks for 5,001 tokens, but has 5,000 .*repetitions = 2\.1"):
        targets(HAVE, both(**config))
    found = targets(HAVE, both(**config, short="allow"))["web/sw"]
    assert (found.asked, found.wanted) == (20_004, 20_000)


def test_alpha_raises_scarce_languages_as_published() -> None:
    have = {"en": 1_000_000, "de": 100_000, "sw": 1_000}
    config = Config(by=["language"], language_alpha=0.3, maximum_repetitions=1000)
    found = targets(have, config)
    powers = {code: units**0.3 for code, units in have.items()}  # arXiv 1911.02116, 2010.11934
    for code, target in found.items():
        assert target.asked == pytest.approx(sum(have.values()) * powers[code] / sum(powers.values()))
    assert sum(target.wanted for target in found.values()) == pytest.approx(sum(have.values()))


def test_alpha_stops_at_the_limit_and_the_others_take_the_rest() -> None:
    have = {"en": 1_000_000, "de": 100_000, "sw": 1_000}
    found = targets(have, Config(by=["language"], language_alpha=0.3, maximum_repetitions=2))
    assert {code: have[code] * 2 for code in ("de", "sw")} == {code: found[code].wanted for code in ("de", "sw")}
    assert found["sw"].asked > found["sw"].wanted
    assert found["en"].wanted == pytest.approx(1_101_000 - 202_000)


def test_alpha_works_inside_each_key() -> None:
    found = wanted(both(weights={"web/*": 0.8, "books/*": 0.2}, language_alpha=0.5, maximum_repetitions=4))
    web = {label: units for label, units in found.items() if label.startswith("web/")}
    assert sum(web.values()) / sum(found.values()) == pytest.approx(0.8)
    assert found["web/en"] / found["web/de"] == pytest.approx(math.sqrt(10))
    assert found["books/en"] / found["books/de"] == pytest.approx(2)


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1))
def test_filling_meets_the_budget_and_no_limit_is_passed(parts: dict[str, tuple[int, int]]) -> None:
    most = {name: float(limit) for name, (_, limit) in parts.items()}
    shares = {name: float(share) for name, (share, _) in parts.items()}
    open_to_all = sum(most[name] for name in parts if shares[name])
    for budget in (0.0, open_to_all / 2, open_to_all):
        found = fill(budget, shares, most)
        assert all(0 <= found[name] <= most[name] + 1e-9 for name in parts)
        assert sum(found.values()) == pytest.approx(budget)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"web/*": 1}}, "does not name the group 'books/de'"),
        ({"weights": {"*/*": 1, "web/fr": 1}}, "no document has the group 'web/fr'; there are: 'books/de'"),
        ({"weights": {"web/*": 1, "*/en": 1, "*/*": 1}}, "'\\*/en', 'web/\\*' both cover 'web/en'"),
        ({"tokens": {"*/*": 1e9}}, "asks for 1,000,000,000 tokens"),
    ],
)
def test_what_cannot_be_met_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        targets(HAVE, both(**settings))


def test_a_weight_for_nothing_but_empty_texts_is_refused() -> None:
    with pytest.raises(UserError, match="'b' has no text"):
        targets({"a": 10, "b": 0}, Config(weights={"a": 1, "b": 1}))


@pytest.mark.parametrize(
    "values",
    [
        {"by": []},
        {"by": ["source", "source"]},
        {"by": ["domain"]},
        {"by": ["quality"]},
        {"quality": {"bounds": [0.5]}},
        {"by": ["quality"], "quality": {"bounds": []}},
        {"by": ["quality"], "quality": {"bounds": [0.5, 0.2]}},
        {"by": ["source", "language"], "weights": {"web": 1}},
        {"by": ["language"], "weights": {"web/en": 1}},
        {"language_alpha": 0.3, "maximum_repetitions": 4},
        {"by": ["language"], "language_alpha": 0.3},
        {"by": ["language"], "language_alpha": 1.3, "maximum_repetitions": 4},
        {"short": "perhaps"},
        {"order": {}},
        {"columns": {"text": "metadata.title"}},
        {"columns": {"title": "title"}},
        {"columns": {"Title": "metadata.a", "title": "metadata.b"}},
    ],
)
def test_bad_groups_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(**values)
