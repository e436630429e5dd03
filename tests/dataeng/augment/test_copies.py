"""Synonyms, and which copies are made: of training documents alone, in their cluster, the same each time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.augment import Config
from dataeng.augment.copies import Work, checked, rows_of
from dataeng.augment.endpoint import Answer, Unanswered
from dataeng.augment.synonyms import read_dictionary, replace
from dataeng.cli import Failure, UserError
from dataeng.document import Document, digest, to_row
from dataeng.publish import Config as Publish
from dataeng.publish.mixture import place

WORDS = {"quick": ("fast", "swift"), "dog": ("hound",), "größe": ("ausmaß",)}


def test_case_is_kept_and_other_words_are_left() -> None:
    text = "Quick! The QUICK dog, doggedly; Größe."
    new, count = replace(text, {"quick": ("fast",), "dog": ("hound",), "größe": ("ausmaß",)}, 1.0, "k")
    assert (new, count) == ("Fast! The FAST hound, doggedly; Ausmaß.", 4)


@given(st.text(), st.text(max_size=3))
def test_without_known_words_nothing_changes(text: str, key: str) -> None:
    assert replace(text, {"☃": ("x",)}, 1.0, key) == (text, 0)


def test_the_share_is_met_and_the_key_decides() -> None:
    text = "dog " * 10_000
    for share in (0.1, 0.5):
        count = replace(text, WORDS, share, "a")[1]
        assert abs(count - share * 10_000) < 4 * math.sqrt(share * (1 - share) * 10_000)
    assert replace(text, WORDS, 0.5, "a") == replace(text, WORDS, 0.5, "a") != replace(text, WORDS, 0.5, "b")
    assert {"fast", "swift"} == set(replace("quick " * 50, WORDS, 1.0, "a")[0].split())


def test_dictionaries_are_read(tmp_path: Path) -> None:
    lines, table = tmp_path / "a.tsv", tmp_path / "a.json"
    lines.write_text("# words\nQuick\tfast\tswift\n\ndog\thound\ndog\tdog\tpuppy\n", "utf-8-sig")
    table.write_text('{"quick": ["fast", "swift"], "dog": ["hound", "puppy"]}')
    expected = {"quick": ("fast", "swift"), "dog": ("hound", "puppy")}
    assert read_dictionary(str(lines)) == read_dictionary(str(table)) == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.tsv", b"quick\tfast\ndog hound\n", "line 2: must be a word, a tab"),
        ("a.tsv", b"quick\t\n", "line 1"),
        ("a.tsv", b"", "no word with a synonym"),
        ("a.tsv", b"\xff\xfe", "cannot be read as UTF-8"),
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[]", "must be an object"),
        ("a.json", b'{"dog": "hound"}', "'dog' has none"),
        ("a.json", b'{"two words": ["x"]}', "is no word"),
    ],
)
def test_a_bad_dictionary_is_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_dictionary(str(tmp_path / name))


def work(**tables: Any) -> Work:
    if "synonyms" not in tables:
        tables["endpoint"] = {"base_url": "http://127.0.0.1:9", "model": "m"}
    return Work(Config(**tables), Publish(validation=0.3, test=0.2), 5, WORDS, "unused", None)


def documents() -> list[Document]:
    return [
        Document(digest(str(k)), f"The quick dog number {k}.", source="web", language="en", scores={"quality": 0.5})
        for k in range(200)
    ]


SYNONYMS = {"languages": ["en"], "dictionary": "d", "share": 0.9, "copies": 2}


def test_copies_are_of_training_documents_and_follow_them() -> None:
    told, seen = work(synonyms=SYNONYMS), 0
    for document in documents():
        split = place(to_row(document), told.publish, told.seed, {})["table"]
        rows = rows_of(document, told, None)
        assert rows == rows_of(document, told, None)
        assert bool(rows) == (split == "train")
        for row in (row for row in rows if row["table"] == "augmented"):
            seen += 1
            assert row["source"] == "web+synonyms"
            assert row["metadata"]["origin"] == document.id
            assert row["text"] != document.text
            assert place(row, told.publish, told.seed, {})["table"] == "train"
            assert rows_of(Document(**{k: row[k] for k in ("id", "text", "language", "metadata")}), told, None) == []
    assert 100 < seen < 200
    assert len({row["id"] for d in documents() for row in rows_of(d, told, None)}) > seen


def test_only_languages_and_shares_that_were_asked_for() -> None:
    half = work(synonyms=SYNONYMS | {"documents": 0.5})
    some = [bool(rows_of(document, half, None)) for document in documents()]
    assert 25 < sum(some) < 75
    other = work(synonyms=SYNONYMS | {"languages": ["de"]})
    assert not any(rows_of(document, other, None) for document in documents())
    short = work(paraphrase={"languages": ["en"], "most_characters": 10})
    assert not any(rows_of(document, short, None) for document in documents())


def test_a_copy_of_what_is_held_back_is_dropped_when_published() -> None:
    told = work(synonyms=SYNONYMS)
    rows = [row for document in documents() for row in rows_of(document, told, None) if row["table"] == "augmented"]
    found = [place(row, Publish(validation=0.5, test=0.4), told.seed, {}) for row in rows]
    assert {(row["table"], row["rule"]) for row in found} == {("train", None), ("dropped", "augmented")}


def test_failures_are_recorded_and_copies_of_one_text_are_one() -> None:
    told = work(paraphrase={"languages": ["en"], "copies": 2}, back_translation={"languages": ["en"]})

    def ask(prompt: str, seed: int) -> Answer:
        if prompt.startswith("Translate"):
            raise Unanswered("timeout")
        return Answer("Some other words for all of them, in e\u0301.", 5, 2)

    document = next(d for d in documents() if rows_of(d, told, ask))
    first, second, third = rows_of(document, told, ask)
    assert first["table"] == "augmented"
    assert first["text"].endswith("in \u00e9.")
    assert first["metadata"]["augmentation.prompt_tokens"] == "5"
    assert [(row["table"], row["rule"], row["text"]) for row in (second, third)] == [
        ("failed", "paraphrase.unchanged", None),
        ("failed", "back_translation.timeout", None),
    ]


def test_only_a_run_without_any_answer_fails() -> None:
    config = work(paraphrase={"languages": ["en"]}).config
    lost = {"method": "paraphrase", "rule": "paraphrase.timeout", "rows": 3, "requests": 9, "unanswered": 9}
    made = {"method": "paraphrase", "rule": None, "rows": 1, "requests": 3, "unanswered": 1}
    found = checked([lost, made], config)["methods"]["paraphrase"]
    assert found == {"copies": 1, "failed": {"timeout": 3}, "requests": 12, "unanswered": 10}
    with pytest.raises(Failure, match=r"none of 9 requests to http://127\.0\.0\.1:9 was answered \(timeout\)"):
        checked([lost], config)
