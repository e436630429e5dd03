import json

import pytest

from dataeng import stage, storage
from dataeng.acquire import tasks
from dataeng.cli import UserError
from dataeng.recipe import Recipe


def make(tmp_path, seed=1, **values):
    recipe = Recipe("test.toml", str(tmp_path), seed, {"tasks": values})
    return recipe, tasks.step(recipe)


def read(tmp_path, manifest, table):
    paths = stage.table_paths(stage.folder_of(str(tmp_path), "tasks"), manifest, table)
    return [json.loads(line) for path in paths for line in storage.read_bytes(path).splitlines()]


def solve(item):
    """The answer worked out anew from the instruction's text."""
    text = item["instruction"]
    rest = text.partition(": ")[2]
    numbers = [int(word) for word in text.replace(",", " ").replace("?", " ").split() if word.isdigit()]
    return {
        "copy": lambda: rest,
        "reverse": lambda: " ".join(reversed(rest.split())),
        "upper": lambda: rest.upper(),
        "count": lambda: str(len(rest.split())),
        "compare": lambda: str(max(numbers)),
        "sum": lambda: str(sum(numbers)),
    }[item["category"]]()


def test_every_answer_is_right_and_every_rejected_one_wrong():
    made = tasks.tables(tasks.Config(train=1200, preferences=1200, preferences_test=120), 3)
    assert all(solve(item) == item["output"] for item in made["train"] + made["test"])
    answers = {item["instruction"]: item["output"] for item in made["train"]}
    assert all(pair["chosen"] != pair["rejected"] for pair in made["preferences"] + made["preferences_test"])
    shared = [pair for pair in made["preferences"] if pair["prompt"] in answers]
    assert shared
    assert all(answers[pair["prompt"]] == pair["chosen"] for pair in shared)


def test_train_and_test_never_share_an_instruction_even_across_seeds():
    train, test = set(), set()
    for seed in range(4):
        made = tasks.tables(tasks.Config(train=2000, preferences=500), seed)
        train |= {item["instruction"] for item in made["train"]} | {pair["prompt"] for pair in made["preferences"]}
        mine = [item["instruction"] for item in made["test"]]
        assert len(mine) == len(set(mine)) >= 600
        test |= set(mine) | {pair["prompt"] for pair in made["preferences_test"]}
    assert not train & test


def test_equal_seeds_give_equal_tables_and_others_do_not():
    config = tasks.Config(train=60, test=60, preferences=60, preferences_test=30)
    assert tasks.tables(config, 1) == tasks.tables(config, 1)
    assert tasks.tables(config, 1)["train"] != tasks.tables(config, 2)["train"]


def test_the_stage_publishes_what_its_manifest_counts_and_is_done_once(tmp_path):
    recipe, first = make(tmp_path, train=30, test=24, preferences=12, preferences_test=6)
    assert {name: len(read(tmp_path, first, name)) for name in first.tables} == first.counts
    assert first.counts["train"] == 30
    assert stage.verify(str(tmp_path), "tasks") == []
    assert tasks.step(recipe).attempt == first.attempt
    assert make(tmp_path, seed=2, train=30, test=24)[1].attempt != first.attempt


def test_kinds_can_be_chosen(tmp_path):
    _, manifest = make(tmp_path, kinds=["sum", "count"], train=10, test=8, preferences=0, preferences_test=0)
    assert {item["category"] for item in read(tmp_path, manifest, "train")} == {"sum", "count"}


def test_a_split_that_leaves_nothing_is_named():
    with pytest.raises(UserError, match=r"tasks\.test_share"):
        tasks.tables(tasks.Config(kinds=("sum",), test_share=1e-9), 0)
