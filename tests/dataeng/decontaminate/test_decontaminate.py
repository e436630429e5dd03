"""What counts as an evaluation item in a document, and what does not."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.decontaminate import Config, EvaluationSet, index, items
from dataeng.decontaminate.items import Item
from dataeng.decontaminate.words import words
from dataeng.document import Document
from dataeng.recipe import KeyProblem, build

QUESTION = (
    "Janet’s ducks lay 1,600 eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends every day with four. How much does she make?"
)
CONFIG = Config()


def judged(text, *texts, config=CONFIG, common=()):
    made = index.build([Item(f"set/{number}", [one]) for number, one in enumerate(texts)], config)
    found = index.find(Document("x", text), made, common)
    return index.decide(found, config), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Janet's  DUCKS, lay—eggs!", ["janets", "ducks", "lay", "eggs"]),
        ("1,000 = 1000; 12,34 3.5 1 234", ["1000", "1000", "12", "34", "3", "5", "1", "234"]),
        ("$80,000 and 150%", ["80000", "and", "150"]),
        ("ﬁle Ｆｕｌｌ １２", ["file", "full", "12"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("e\u0301t\u00e9 किताबें", ["été", "किताबें"]),
        ("我们 ab安装", ["我", "们", "ab", "安", "装"]),
        ("snake_case_name", ["snake", "case", "name"]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@given(st.text())
@settings(deadline=None)
def test_words_do_not_depend_on_case_marks_or_spacing(text):
    assert words(" " + text.replace(" ", "  ") + " !") == words(text)
    assert all(word and not word.isspace() for word in words(text))


def test_an_item_is_found_whatever_its_format():
    copies = [
        QUESTION,
        QUESTION.upper(),
        QUESTION.replace("1,600", "1600").replace("’", "'"),
        QUESTION.replace(" ", "\n"),
        "Before. " + QUESTION + " After.",
    ]
    for text in copies:
        verdict, found = judged(
            text, "Some other question of more than thirteen words that is not in it at all, is it?", QUESTION
        )
        assert verdict[:2] == (False, "contaminated"), text
        assert (found.item, found.similarity) == ("set/1", 1.0)


def test_thirteen_words_are_evidence_and_twelve_are_not():
    inside = QUESTION.split()
    assert not judged("x " + " ".join(inside[3:16]) + " y", QUESTION)[0].keep
    assert judged("x " + " ".join(inside[3:15]) + " y", QUESTION) == ((True, None, None, None, None), None)


def test_similarity_is_the_share_of_the_items_n_grams():
    text = " ".join(f"w{n}" for n in range(22))  # ten n-grams
    verdict, found = judged(" ".join(text.split()[:16]), text)
    assert found.similarity == verdict.score == pytest.approx(0.4)
    assert judged(" ".join(text.split()[:16]), text, config=Config(share_max=0.4))[0].keep
    assert not judged(" ".join(text.split()[:16]), text, config=Config(share_max=0.39))[0].keep


def test_the_best_item_is_named_and_ties_go_to_the_first():
    first = " ".join(f"a{n}" for n in range(26))
    second = " ".join(f"b{n}" for n in range(13))
    assert judged(first[: len(" ".join(f"a{n}" for n in range(13)))] + " " + second, first, second)[1].item == "set/1"
    assert judged(second, second, second)[1].item == "set/0"


def test_short_items_are_matched_whole_or_counted():
    eight, seven = "what is the colour of the winter sky", "what is the colour of the sky"
    assert not judged(f"He asked: {eight}?", eight)[0].keep
    assert judged("what is the colour of the winter sea", eight)[0].keep
    made = index.build([Item("a/0", [eight]), Item("a/1", [seven]), Item("b/0", ["", seven])], CONFIG)
    assert made.too_short == {"a": 1, "b": 1}
    assert index.find(Document("x", seven), made) is None


def test_fields_of_an_item_are_looked_for_each_by_itself():
    made = index.build([Item("a/0", [QUESTION, " ".join(f"w{n}" for n in range(13))])], CONFIG)
    assert 0.9 < index.find(Document("x", QUESTION), made).similarity < 1
    both = index.find(Document("x", QUESTION + " and " + " ".join(f"w{n}" for n in range(13))), made)
    assert both.similarity == 1


def test_common_n_grams_are_no_evidence_without_half_of_an_item():
    long = " ".join(f"w{n}" for n in range(112))  # a hundred n-grams
    made = index.build([Item("a/0", [long])], CONFIG)
    part = " ".join(long.split()[:20])
    held = index.entries_in(part, made).tolist()
    assert len(held) == 8
    assert index.decide(index.find(Document("x", part), made, held), CONFIG).keep
    assert not index.decide(index.find(Document("x", part), made, held[1:]), CONFIG).keep
    everything = index.entries_in(long, made).tolist()
    assert not index.decide(index.find(Document("x", long), made, everything), CONFIG).keep


def test_no_items_drop_nothing():
    made = index.build([], CONFIG)
    assert index.find(Document("x", QUESTION), made) is None
    assert index.memory_bytes(made) > 0
    assert index.find(Document("x", None), index.build([Item("a/0", [QUESTION])], CONFIG)) is None


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=60)


@given(WORDS, st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_index_finds_what_comparing_every_n_gram_finds(text, sets):
    config = Config(ngram=5, shortest=3)
    made = index.build([Item(f"s/{number}", [" ".join(one)]) for number, one in enumerate(sets)], config)
    best = None
    for number, item in enumerate(sets):
        size = min(5, len(item))
        if size < 3:
            continue
        grams = {tuple(item[i : i + size]) for i in range(len(item) - size + 1)}
        found = grams & {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        share = len(found) / len(grams)
        if found and (best is None or share > best[1]):
            best = (f"s/{number}", share)
    result = index.find(Document("x", " ".join(text)), made)
    assert (result and result[:2]) == (best and (best[0], pytest.approx(best[1])))


def test_formats_of_evaluation_sets(tmp_path):
    rows = [{"question": QUESTION, "n": 1}, {"question": "two", "n": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        entry = EvaluationSet(name="gsm8k", path=str(tmp_path / name), fields=["question"])
        assert items.read_set(entry) == [Item("gsm8k/0", [QUESTION]), Item("gsm8k/1", ["two"])], name
    (tmp_path / "a.csv").write_text('"A question, quoted\nover lines",x,y\nanother,z,w\n')
    entry = EvaluationSet(name="mmlu", path=str(tmp_path / "a.csv"), fields=[0, 2])
    assert items.read_set(entry) == [
        Item("mmlu/0", ["A question, quoted\nover lines", "y"]),
        Item("mmlu/1", ["another", "w"]),
    ]


@pytest.mark.parametrize(
    ("name", "content", "fields", "says"),
    [
        ("a.jsonl", '{"text": "x", "id": 1}\n', ["question"], r"a\.jsonl, line 1: has no field 'question'.*: text, id"),
        ("a.csv", "a,b\n", [2], r"a\.csv, row 1: has no field 2.*: 0, 1"),
        ("a.jsonl", '{"text"\n', ["text"], r"a\.jsonl, line 1: is not JSON"),
        ("a.jsonl", "[1]\n", ["text"], r"a\.jsonl, line 1: is not a JSON object"),
        ("a.jsonl", "\n\n", ["text"], r"a\.jsonl: the evaluation set 'e' is empty"),
        ("a.jsonl.gz", "plain", ["text"], r"a\.jsonl\.gz: cannot be read"),
        (None, "", ["text"], r"none\.jsonl: the evaluation set 'e' is not there"),
    ],
)
def test_bad_sets_are_named(tmp_path, name, content, fields, says):
    if name:
        (tmp_path / name).write_text(content)
    entry = EvaluationSet(name="e", path=str(tmp_path / (name or "none.jsonl")), fields=fields)
    with pytest.raises(UserError, match=says):
        items.read_set(entry)


MISTAKES = [
    {"sets": [{"name": "a/b", "path": "x", "fields": ["t"]}]},
    {"sets": [{"name": "a", "path": "x", "fields": []}]},
    {"ngrams": 13},
    {"share_max": 1},
]


@pytest.mark.parametrize("values", MISTAKES)
def test_mistakes_in_the_recipe_are_refused(values):
    with pytest.raises(KeyProblem):
        build(Config, "decontaminate", values)


def test_tasks_are_read_as_what_is_asked(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"category": "c", "instruction": "Copy:", "input": "a b", "output": "a b"}) + "\n")
    assert items.read_tasks([str(path)]) == [Item("tasks/0", ["Copy:\na b"])]


def test_the_labelled_crawls_questions_are_those_of_the_set(data_dir):
    entry = EvaluationSet(name="gsm8k", path=str(data_dir / "eval" / "gsm8k_test_head.jsonl.gz"), fields=["question"])
    made = index.build(items.read_set(entry), CONFIG)
    assert made.too_short == {}
    with gzip.open(data_dir / "crawl-a" / "labels.jsonl.gz", "rt") as lines:
        labels = [label for line in lines if (label := json.loads(line))["kind"] == "contaminated"]
    assert len(labels) == 40
    for label in labels:
        found = index.find(Document("x", "Study notes\n" + label["eval_text"].replace("  ", " ") + "\nMore."), made)
        assert found.similarity == 1
