"""Both rules against a program that looks at every window: nothing too little, nothing too much, nothing lost."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from passages_brute import check

from dataeng.document import Document, to_row
from dataeng.passages import Config, cut, units
from dataeng.passages.spans import REPEATS, spans
from dataeng.recipe import Recipe

Rows = list[dict[str, Any]]


def config(**settings: Any) -> Config:
    found: Config = Recipe("test.toml", "x", 0, {"passages": settings}).step("passages")
    return found


def documents(*texts: str, site: str | None = None) -> Rows:
    urls = [f"https://{site}/{number}" if site else None for number in range(len(texts))]
    pairs = enumerate(zip(texts, urls, strict=True))
    return [to_row(Document(id=f"{number:03d}", text=text, url=url, source="s")) for number, (text, url) in pairs]


def _counted(rows: list[dict[str, Any]], least: dict[int, int]) -> list[dict[str, Any]]:
    groups: dict[tuple[int, int, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["kind"], row["key"], row["more"]].append(row)
    found = []
    for group in groups.values():
        holders = sum(row["weight"] for row in group)
        first = min((row["rank"], row["id"], row["place"]) for row in group)
        more = {"holders": holders, "first_id": first[1], "first_place": first[2]}
        found += [row | more for row in group if holders >= least[row["kind"]]]
    return found


def run(rows: Rows, config: Config) -> tuple[Rows, Rows]:
    """The step without an engine: rows of tables kept and dropped, rows of `spans`."""
    least = {units.SITE: 1, units.RUN: 2, units.WINDOW: 2}
    least[units.LINE] = config.rule("lines").minimum_documents if "lines" in config.rules else 0
    batch = pa.RecordBatch.from_pylist([{k: row[k] for k in ("id", "url", "source", "text")} for row in rows])
    found = _counted([row for part in units.units([batch], config) for row in part.to_pylist()], least)
    places: dict[str, list[int]] = defaultdict(list)
    for row in found:
        if row["kind"] == units.RUN:
            places[row["id"]].append(row["place"])
    texts = [{k: row[k] for k in ("id", "url", "text")} | {"places": places[row["id"]]} for row in rows]
    some = pa.RecordBatch.from_pylist([row for row in texts if row["places"]] or texts)
    if "substrings" in config.rules:
        found += _counted([row for part in units.windows([some], config) for row in part.to_pylist()], least)
    repeats = sorted(
        (row for row in found if row["kind"] != units.RUN), key=lambda row: (row["id"], row["kind"], row["place"])
    )
    plain = [{name: row[name] for name in REPEATS.names} for row in repeats]
    halves = [pa.RecordBatch.from_pylist(part, schema=REPEATS) for part in (plain[:7], plain[7:])]
    cuts = [row for part in spans(halves, config) for row in part.to_pylist()]
    by_id: dict[str, Rows] = defaultdict(list)
    for span in cuts:
        by_id[span["id"]].append(span)
    needed = {span["first_id"] for span in cuts}
    return [cut.verdict(r | {"spans": by_id[r["id"]], "needed": r["id"] in needed}, config) for r in rows], cuts


def checked(rows: Rows, config: Config) -> tuple[dict[str, str], Rows]:
    """The kept texts and the spans, after they were compared with the plain program's."""
    written, cuts = run(rows, config)
    kept = {row["id"]: row["text"] for row in written if row["table"] == "kept"}
    check(rows, cuts, kept, config)
    return kept, cuts


def words(chance: random.Random, count: int, prefix: str = "") -> str:
    return " ".join(f"{prefix}{chance.randrange(10**6):x}" for _ in range(count))


SUBSTRINGS: dict[str, Any] = {"rules": ["substrings"], "minimum_characters": 0}


@pytest.mark.parametrize("length", [49, 50, 51, 120])
@pytest.mark.parametrize("at", ["start", "middle", "end", "whole"])
def test_fifty_tokens_go_and_forty_nine_stay(length: int, at: str) -> None:
    chance = random.Random(length)
    passage = words(chance, length)
    before = words(chance, 20) + " " if at in ("middle", "end") else ""
    after = "\n" + words(chance, 20) if at in ("middle", "start") else ""
    rows = documents(f"{words(chance, 30)} {passage} {words(chance, 5)}", before + passage.replace(" ", "\n ") + after)
    kept, cuts = checked(rows, config(**SUBSTRINGS))
    if length < 50:
        assert not cuts
        assert kept == {row["id"]: row["text"] for row in rows}
    else:
        (span,) = cuts
        changed = {"000": rows[1], "001": rows[0]}[span["first_id"]]
        assert changed["text"][span["start"] : span["end"]].split() == passage.split()


def test_a_first_occurrence_that_is_itself_cut_leads_on_to_text_that_stays() -> None:
    chance = random.Random(1)
    tokens = words(chance, 150).split()
    rows = documents(*(" ".join(tokens[first : first + 80]) for first in (0, 25, 50, 70)))
    kept, cuts = checked(rows, config(**SUBSTRINGS))
    assert len(cuts) >= 3
    assert sorted(word for text in kept.values() for word in text.split()) == sorted(tokens)


def test_repeats_inside_one_document() -> None:
    chance = random.Random(2)
    passage, other = words(chance, 60), words(chance, 10)
    twice = documents(f"{passage} {other} {passage}")
    assert checked(twice, config(**SUBSTRINGS))[0] == {"000": f"{passage} {other}"}
    assert checked(twice, config(**SUBSTRINGS, substrings={"within": False}))[1] == []
    kept, cuts = checked(documents("a " * 200, "a " * 120), config(**SUBSTRINGS))
    assert sorted(len(text.split()) for text in kept.values()) == [0, 50]
    assert len(cuts) == 3 + 3 or len(cuts) == 2 + 4


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    chance = random.Random(3)
    passage = "".join(chr(0x4E00 + chance.randrange(2000)) for _ in range(60))
    rows = documents(f"前置き{passage}、終わり。", f"Latin words{passage}more. {passage[:49]}")
    kept, cuts = checked(rows, config(**SUBSTRINGS))
    assert len(cuts) == 1
    assert sorted(kept.values())[0] in (f"Latin words more. {passage[:49]}", rows[1]["text"])


@st.composite
def corpora(draw: st.DrawFn) -> Rows:
    """Texts put together from a few passages over a small alphabet, so that repeats overlap and nest."""
    token = st.sampled_from(["a", "b", "c.", "日", "本", "Ünde"])
    passages = draw(st.lists(st.lists(token, min_size=1, max_size=9), min_size=1, max_size=4))
    space = st.sampled_from([" ", "\n", "  ", "\n\n", "\t"])
    piece = st.tuples(st.sampled_from(passages), space)
    texts = draw(st.lists(st.lists(piece, max_size=6), min_size=1, max_size=5))
    plain = ["".join(after.join(p) + after for p, after in text) for text in texts]
    return documents(*plain, site=draw(st.sampled_from([None, "one.example"])))


@settings(max_examples=100)
@given(corpora(), st.integers(2, 9), st.booleans())
def test_substrings_are_those_of_a_plain_program(rows: Rows, length: int, within: bool) -> None:
    checked(rows, config(**SUBSTRINGS, substrings={"tokens": length, "within": within}))


@settings(max_examples=100)
@given(corpora(), st.integers(2, 4), st.integers(1, 6), st.sampled_from([0.5, 1.0]), st.integers(1, 3))
def test_lines_and_both_rules_are_those_of_a_plain_program(
    rows: Rows, documents: int, minimum: int, share: float, least: int
) -> None:
    table = {"minimum_documents": documents, "minimum_words": minimum, "minimum_share": share, "line_words": least}
    checked(rows, config(rules=["lines"], minimum_characters=0, lines=table))
    checked(rows, config(minimum_characters=12, lines=table, substrings={"tokens": 5}))


FOOTER = "© 2024 Example Inc.\nAll rights reserved. Read our terms of use and our privacy policy before you go on."


def page(number: int, code: bool = False) -> str:
    listing = "\ntry:\n    import sys\nelse:\n    pass\n" if code else "\n"
    return f"Our shop\n\nPage {number}\nIntroduction\nText {number} of this page.{listing}\n{FOOTER}"


def test_frames_of_a_site_go_and_headings_and_code_stay() -> None:
    rows = documents(*(page(n, code=n % 2 == 0) for n in range(12)), site="shop.example")
    kept, cuts = checked(rows, config(minimum_characters=0))
    whole = [text for text in kept.values() if text.startswith("Our shop")]
    assert len(whole) == 1
    assert whole[0].endswith(FOOTER)
    others = {text for text in kept.values()} - set(whole)
    assert all("rights" not in text and "Introduction" in text for text in others)
    assert sum("    import sys\nelse:\n    pass" in text for text in kept.values()) == 6
    assert {span["rule"] for span in cuts} == {"lines"}


def test_lines_of_other_sites_and_of_few_documents_stay() -> None:
    rows = documents(*(page(n) for n in range(5)), site="few.example")
    assert checked(rows, config())[1] == []
    for number, row in enumerate(rows * 1):
        row["url"] = f"https://{number}.example/"
    assert checked(rows + documents(*(page(n) for n in range(20, 30)))[5:], config())[1] == []
