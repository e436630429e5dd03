"""One document's rank and verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dataeng.cli import UserError
from dataeng.dedup import Config
from dataeng.dedup.decide import rank, verdict
from dataeng.document import Document, to_row
from dataeng.recipe import Recipe


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
    ("values", "problem"),
    [
        ({"keep": "newest"}, 'keep = "newest": must be longest, earliest or highest:SCORE'),
        ({"keep": "highest:"}, 'keep = "highest:": must be longest, earliest or highest:SCORE'),
        ({"threshold": 0}, "threshold = 0: input should be greater than 0"),
        ({"threshold": -0.8}, "threshold = -0.8: input should be greater than 0"),
        ({"threshold": 1.5}, "threshold = 1.5: input should be less than or equal to 1"),
        ({"threshold": math.nan}, "threshold = NaN: input should be"),
        ({"permutations": 128}, "permutations = 128 is not bands x rows = 14 x 8 = 112: change one of the three"),
        ({"bands": 16, "rows": 8, "permutations": 112}, "permutations = 112 is not bands x rows = 16 x 8 = 128"),
        ({"hash_bits": 16}, "hash_bits = 16: input should be 32 or 64"),
        ({"input": []}, "input names no stage"),
        ({"against": ["s3://b/a", "s3://b/a/"]}, "against names a run twice"),
        ({"against": ["s3://b/a#1"]}, "must not hold #"),
        ({"band": 1}, "band = 1: unknown key; allowed here: against, bands"),
    ],
)
def test_bad_settings_are_refused_in_one_line(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe("web.toml", "root", 0, {"dedup": values}).step("dedup")
    assert str(caught.value).startswith("web.toml: dedup")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stage_named_twice_is_read_once() -> None:
    assert Config(input=["a", "b", "a"]).input == ["a", "b"]


def test_written_permutations_change_nothing() -> None:
    assert Config(permutations=112).results() == Config().results()
