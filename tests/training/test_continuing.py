"""Which runs go on from which checkpoints: other lengths, versions and samples."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from dataeng import stage
from tests.training.tools import publish_tokens, recipe_at
from training.context import Context
from training.methods import pretrain


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    publish_tokens(recipe_at(root))
    return root


def copy_of(published, tmp_path):
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return recipe_at(tmp_path)


def run(recipe):
    pretrain.run(Context.single(recipe, "pretrain"))


def details(recipe):
    return stage.need_manifest(recipe.root, "pretrain", "test").details


def rows(root):
    return [json.loads(line) for line in Path(root, "pretrain", "metrics.jsonl").read_text().splitlines()]


def test_a_shorter_run_does_not_publish_the_longer_ones_model(published, tmp_path):
    flat = {"schedule": "constant", "checkpoint_every": 3, "keep": 9}
    publish = copy_of(published, tmp_path)
    run(recipe_at(publish.root, max_steps=6, **flat))
    shorter = recipe_at(publish.root, max_steps=4, **flat)
    run(shorter)
    manifest = stage.need_manifest(publish.root, "pretrain", "test")
    assert (manifest.details["resumed_from"], manifest.counts["steps"]) == (3, 4)
    assert [row["step"] for row in rows(publish.root)] == [1, 2, 3, 4]


def test_wsd_keeps_what_a_longer_run_goes_on_from_and_others_say_that_they_start_anew(published, tmp_path, caplog):
    caplog.set_level(logging.INFO, "millrace")
    wsd = {"schedule": "wsd", "decay_share": 0.5, "checkpoint_every": 2, "keep": 1}
    root = copy_of(published, tmp_path).root
    run(recipe_at(root, max_steps=8, **wsd))
    longer = recipe_at(root, max_steps=12, **wsd)
    run(longer)
    assert details(longer)["resumed_from"] == 4
    assert "training starts anew" not in caplog.text
    run(recipe_at(root, max_steps=8, **wsd | {"schedule": "cosine"}))
    assert re.search(r"training starts anew: the \d+ checkpoints are of other settings or inputs", caplog.text)
    run(recipe_at(root, max_steps=9, **wsd | {"schedule": "cosine"}))
    assert "of another max_steps, on which learning rates depend (schedule = 'cosine')" in caplog.text


def test_another_version_of_torch_goes_on(published, tmp_path, monkeypatch):
    flat = {"schedule": "constant"}
    root = copy_of(published, tmp_path).root
    run(recipe_at(root, max_steps=4, **flat))
    known = stage.library_versions

    def newer(names):
        return known(names) | ({"torch": "99.0"} if "torch" in names else {})

    monkeypatch.setattr(stage, "library_versions", newer)
    longer = recipe_at(root, max_steps=6, **flat)
    run(longer)
    assert details(longer)["resumed_from"] == 4


def test_samples_of_another_length_are_another_run(published, tmp_path):
    recipe = copy_of(published, tmp_path)
    before = pretrain.inputs(recipe, "pretrain")
    path = Path(recipe.root, "tokens/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["details"]["sample_tokens"] //= 2
    path.write_text(json.dumps(manifest))
    assert pretrain.inputs(recipe, "pretrain") != before
