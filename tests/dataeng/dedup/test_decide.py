"""One document's rank and verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from dataeng.dedup import Config
from dataeng.dedup.decide import rank, verdict
from dataeng.document import Document, to_row


def row_of(**values: Any) -> dict[str, Any]:
    decided = {"first": True, "representative": "a", "survivor": "a", "cluster": "f" * 64, "matched": None}
    return to_row(Document(id="a", text="some text")) | decided | {"similarity": None} | values


@pytest.mark.parametrize(
    ("keep", "better", "worse"),
    [
        ("longest", {"text": "longer"}, {"text": "long"}),
        ("longest", {"text": "x"}, {"text": None}),
        ("earliest", {"date": "2020-01-01T00:00:00Z"}, {"date": "2021-01-01"}),
        ("earliest", {"date": "2020-01-01T00:00:00+05:00"}, {"date": "2020-01-01T00:00:00Z"}),
        ("earliest", {"date": "2020-01-01"}, {"date": None}),
        ("earliest", {"date": "2020-01-01"}, {"date": "last week"}),
        ("highest:quality", {"scores": {"quality": 0.9}}, {"scores": {"quality": 0.1}}),
        ("highest:quality", {"scores": {"quality": -5.0}}, {"scores": {"other": 1.0}}),
        ("highest:quality", {"scores": [("quality", 0.1)]}, {"scores": [("quality", math.nan)]}),
    ],
)
def test_rank(keep: str, better: dict[str, Any], worse: dict[str, Any]) -> None:
    empty = {"text": "", "date": None, "scores": {}}
    assert rank(empty | better, keep) < rank(empty | worse, keep)


def test_a_survivor_is_kept_with_its_cluster() -> None:
    found = verdict(row_of(), Config())
    assert (found["table"], found["metadata"]) == ("kept", {"cluster": "f" * 32})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"first": False, "survivor": "s"}, ("duplicate_id", None, None, "s", "a", None)),
        ({"representative": "r", "survivor": "r"}, ("exact", 1.0, 1.0, "r", "r", 1.0)),
        ({"representative": "r", "survivor": "s", "matched": "m"}, ("exact", 1.0, 1.0, "s", "r", 1.0)),
        ({"survivor": "s", "matched": "m", "similarity": 0.9}, ("near_duplicate", 0.9, 0.8, "s", "m", 0.9)),
    ],
)
def test_the_others_say_why(values: dict[str, Any], expected: tuple[object, ...]) -> None:
    found = verdict(row_of(**values), Config())
    names = ("rule", "score", "threshold", "duplicate_of", "matched", "similarity")
    assert tuple(found[name] for name in names) == expected
    assert (found["table"], found["stage"], found["text"]) == ("dropped", "dedup", "some text")


@pytest.mark.parametrize(
    "values",
    [{"keep": "newest"}, {"keep": "highest:"}, {"threshold": 0}, {"threshold": 1.5}, {"input": []}, {"band": 1}],
)
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(**values)
