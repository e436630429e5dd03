"""Tokens and their places, what a window is stood for by, how a text looks after a cut, and what is recorded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.document import Document, to_row
from dataeng.passages import cut
from dataeng.passages.tokens import tokens, winnow
from dataeng.recipe import Recipe


def pieces(text: str) -> list[str]:
    found = tokens(text)
    return [text[start:end] for start, end in zip(found.starts, found.ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t\u00a0\u2003", []),
        ("One, two\n\nthree.", ["One,", "two", "three."]),
        ("abc日本語def。 x", ["abc", "日", "本", "語", "def。", "x"]),
        ("日 本", ["日", "本"]),
        ("がが", ["が", "が"]),
        ("ไทย ที่", ["ไ", "ท", "ย", "ที่"]),
        ("\u0301e soft\u00adhyphen", ["\u0301e", "soft\u00adhyphen"]),
        ("𠀀𠀁 😀😀", ["𠀀", "𠀁", "😀😀"]),
        ("half \ud800 pair", ["half", "\ud800", "pair"]),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@given(st.text(alphabet=st.characters(max_codepoint=0x10FFFF), max_size=60))
def test_tokens_are_all_that_is_no_white_space(text: str) -> None:
    assert "".join(pieces(text)) == "".join(text.split())
    plain = [piece for piece in pieces(text) if piece]
    assert len(plain) >= len(text.split())


def test_equal_tokens_have_equal_hashes_and_others_do_not() -> None:
    one, other = tokens("so Be it SO be it"), tokens("it\n\nbe")
    assert one.hashes[2] == one.hashes[5] == other.hashes[0]
    assert one.hashes[4] == other.hashes[1]
    assert len(set(one.hashes.tolist())) == 5
    assert tokens("a1 1.5 — 日").letters.tolist() == [True, False, False, True]


@given(st.lists(st.integers(0, 3), max_size=80), st.integers(2, 9))
def test_equal_windows_are_stood_for_by_runs_of_equal_hash(numbers: list[int], length: int) -> None:
    found = tokens(" ".join(map(str, numbers)))
    hashes, least = winnow(found, length)
    assert len(least) == max(0, len(numbers) - length + 1)
    by_window: dict[tuple[int, ...], int] = {}
    for place, run in enumerate(least.tolist()):
        assert place <= run <= place + length - length // 2
        value = int(hashes[run])
        assert value == int(np.min(hashes[place : place + length - length // 2 + 1]))
        assert by_window.setdefault(tuple(numbers[place : place + length]), value) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[x]]", ""),
        ("one [[x]] two", "one two"),
        ("one[[x]]two", "one two"),
        ("日[[x]]本", "日本"),
        ("one\n[[x]]\ntwo", "one\ntwo"),
        ("one\n\n[[x]]\n\ntwo", "one\n\ntwo"),
        ("one\n\n\n\n[[x]]\ntwo", "one\n\ntwo"),
        ("one\n[[x]]\n    two", "one\n    two"),
        ("one\n  [[x]] two", "one\n  two"),
        ("one [[x\ny]] two", "one\ntwo"),
        ("  [[x]]\n\n  two\n", "two\n"),
        ("one\n\n[[x]] \n", "one"),
        ("a [[x]] [[y]]\n[[z]] b", "a\nb"),
        ("a  b [[x]] c   d", "a  b c   d"),
    ],
)
def test_what_stands_at_a_seam(text: str, expected: str) -> None:
    spans, plain = [], ""
    for part in text.split("[["):
        inside, closed, after = part.partition("]]")
        if closed:
            spans.append((len(plain), len(plain) + len(inside)))
        plain += inside + after
    assert cut.cut(plain, spans) == expected


def _config(**settings: object) -> object:
    return Recipe("test.toml", "x", 0, {"passages": settings}).step("passages")


def test_what_is_left_decides_and_the_record_tells() -> None:
    document = Document(id="1", text="a" * 40 + " " + "b" * 60 + " " + "c" * 9, metadata={"title": "t"})
    spans = [{"start": 41, "end": 101, "rule": "substrings"}, {"start": 50, "end": 101, "rule": "lines"}]
    row = to_row(document) | {"spans": spans, "needed": None}
    kept = cut.verdict(row, _config(minimum_characters=50))  # type: ignore[arg-type]
    assert kept["table"] == "kept"
    assert kept["text"] == "a" * 40 + " " + "c" * 9
    assert kept["metadata"] == {"title": "t", "cut.characters": "60", "cut.lines": "1", "cut.substrings": "1"}
    dropped = cut.verdict(row, _config(minimum_characters=51))  # type: ignore[arg-type]
    assert (dropped["table"], dropped["stage"], dropped["rule"]) == ("dropped", "passages", "passages")
    assert (dropped["score"], dropped["threshold"]) == (round(50 / 111, 6), round(51 / 111, 6))
    assert dropped["text"] == document.text
    assert dropped["metadata"] == {"title": "t"}
    needed = cut.verdict(row | {"needed": True}, _config(minimum_characters=51))  # type: ignore[arg-type]
    assert needed["table"] == "kept"
    untouched = cut.verdict(row | {"spans": None}, _config(minimum_characters=1000))  # type: ignore[arg-type]
    assert untouched["row_hash"] == to_row(document)["row_hash"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rules": []}, "passages.rules"),
        ({"rules": ["cut"]}, "passages.cut: is a module, but not a rule; known: lines, substrings"),
        ({"rules": ["lines", "lines"]}, "lines named twice"),
        ({"input": []}, "names no stage"),
        ({"lines": {"minimum_documents": 1}}, "passages.lines.minimum_documents = 1"),
        ({"lines": {"minimum_share": 1.5}}, "passages.lines.minimum_share = 1.5"),
        ({"substrings": {"tokens": 1}}, "passages.substrings.tokens = 1"),
        ({"paragraphs": {}}, "paragraphs"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as told:
        _config(**settings)
    assert message in str(told.value)
