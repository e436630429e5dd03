"""How evaluation sets are read, and what is said of those that cannot be."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng.cli import UserError
from dataeng.decontaminate import Config, EvaluationSet, items
from dataeng.decontaminate.items import Item
from dataeng.recipe import KeyProblem, build

QUESTION = "Which of these is the largest?"


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
        ("a.jsonl", '{"rows": [{"q": 1}]}\n', ["rows.text"], r"line 1: has no field 'rows\.text'; its fields: rows"),
        ("a.jsonl", '{"text": "x"}\n', [], r"a\.jsonl: .*names no fields.*\(mmlu, humaneval\).*the file's: text"),
        ("a.parquet", "no such thing", ["text"], r"a\.parquet: cannot be read as Parquet"),
        ("a.csv", "question,choice0,choice1,answer\n", [], r"the evaluation set 'e' is empty"),
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
    {"sets": [{"name": "a", "path": "x", "format": "squad"}]},
    {"sets": [{"name": "a", "path": "x", "answers": ["a"]}]},
    {"sets": [{"name": "a", "path": "x", "format": "mmlu", "fields": [0]}]},
    {"action": "mask"},
    {"edited_min": 0.2},
    {"ngrams": 13},
    {"share_max": 1},
]


@pytest.mark.parametrize("values", MISTAKES)
def test_mistakes_in_the_recipe_are_refused(values):
    with pytest.raises(KeyProblem):
        build(Config, "decontaminate", values)


def test_nested_fields_and_lists_have_dotted_names(tmp_path):
    row = {"data": {"q": "outer"}, "rows": [{"t": "one"}, {"t": "two"}], "a.b": "flat", "list": ["x", 3], "none": None}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    fields = ["data.q", "rows.t", "rows.1.t", "a.b", "list", "none"]
    entry = EvaluationSet(name="e", path=str(tmp_path / "a.jsonl"), fields=fields, answers=["list.0"])
    texts = ["outer", "one", "two", "two", "flat", "x", "3", ""]
    assert items.read_set(entry) == [Item("e/0", texts, ["x"])]


OPTIONS = ["Mars", "Jupiter", "Venus", "Io"]


@pytest.mark.parametrize("given", [None, "mmlu"])
@pytest.mark.parametrize("answer", ["B", "1"])
@pytest.mark.parametrize("kind", ["csv", "headed.csv", "jsonl"])
def test_mmlu_as_it_comes(tmp_path, kind, answer, given):
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps({"question": QUESTION, "choices": OPTIONS, "answer": answer}) + "\n")
    else:
        head = "question,choice0,choice1,choice2,choice3,answer\n" if kind == "headed.csv" else ""
        path.write_text(f"{head}{QUESTION},{','.join(OPTIONS)},{answer}\n")
    found = items.read_set(EvaluationSet(name="mmlu", path=str(path), format=given))
    assert found == [Item("mmlu/0", [QUESTION], ["Jupiter"], OPTIONS)]


def test_mmlu_rows_without_a_right_option_are_named(tmp_path):
    (tmp_path / "a.csv").write_text(f"{QUESTION},a,b,c,d,E\n")
    with pytest.raises(UserError, match=r"a\.csv, row 1: is not a row of MMLU"):
        items.read_set(EvaluationSet(name="mmlu", path=str(tmp_path / "a.csv"), format="mmlu"))


def test_humaneval_as_it_comes(tmp_path):
    row = {
        "task_id": "t/0",
        "prompt": "def f():",
        "entry_point": "f",
        "canonical_solution": " pass",
        "test": "assert f",
    }
    (tmp_path / "h.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    entry = EvaluationSet(name="he", path=str(tmp_path / "h.jsonl.gz"))
    assert items.read_set(entry) == [Item("he/0", ["def f():", "assert f"], [" pass"])]


def test_tasks_are_read_as_what_is_asked_and_answered(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"category": "c", "instruction": "Copy:", "input": "a b", "output": "a b"}) + "\n")
    assert items.read_tasks([str(path)]) == [Item("tasks/0", ["Copy:\na b"], ["a b"])]


def test_the_sets_of_the_data_folder_are_known(data_dir):
    sizes = {"HumanEval.jsonl.gz": 164, "mmlu/test/astronomy_test.csv": 152, "mmlu/dev/astronomy_dev.csv": 5}
    for name, size in sizes.items():
        found = items.read_set(EvaluationSet(name="e", path=str(data_dir / "eval" / name)))
        assert len(found) == size
        assert all(item.texts[0] and item.answers for item in found)
