"""Bad input of training: one line from the job's and the command's own entry, status 2, before any worker starts."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import training.__main__ as command
from dataeng import cli
from dataeng.recipe import Recipe
from dataeng.tokens.tokenizer import Config, learn, load
from ray_jobs import cluster, train
from tests.training.tools import publish_tokenizer, publish_tokens, recipe_at, text
from training import huggingface
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.weights import Gathered


@dataclass
class Root:
    """A published root and the recipe's own tables, to be spoilt."""

    path: Path
    tables: dict[str, Any]


def toml(value: Any) -> str:
    """A value in TOML, tables in one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def heads(root: Root) -> None:
    root.tables["pretrain"]["model"] |= {"heads": 5, "kv_heads": 5}


def long_rows(root: Root) -> None:
    root.tables["pretrain"]["model"] |= {"context": 16}


def other_tokenizer(root: Root) -> None:
    shutil.rmtree(root.path / "tokenizer")
    made = learn((text(n, 20) for n in range(5)), Config(vocabulary=350)).to_str()
    publish_tokenizer(Recipe("test.toml", str(root.path), 3, {}), made=made)


def mesh(root: Root) -> None:
    root.tables["pretrain"]["mesh"] = {"shard": 3}


def tensors_and_stages(root: Root) -> None:
    root.tables["pretrain"]["mesh"] = {"tensor": 4}


def compiled_tensors(root: Root) -> None:
    root.tables["train"] = {"workers": 2}
    root.tables["pretrain"] |= {"mesh": {"tensor": 2}, "compile": True}


def shard_of(root: Root) -> Path:
    return sorted(root.path.glob("tokens/data/*/train/*/*.bin"))[0]


def missing_shard(root: Root) -> None:
    shard_of(root).unlink()


def short_shard(root: Root) -> None:
    shard = shard_of(root)
    shard.write_bytes(shard.read_bytes()[:-2])


def no_shards(root: Root) -> None:
    shutil.rmtree(root.path / "tokens")


def other_model(root: Root) -> None:
    """A folder whose config.json is another model's than its weights."""
    path, folder = root.path / "tokenizer/data/tokenizer.json", root.path / "elsewhere"
    shape = ModelConfig.model_validate(root.tables["pretrain"].pop("model"))
    model = Decoder(shape, load(str(path)).get_vocab_size())
    init_weights(model, 1)
    huggingface.write(str(folder), Gathered(model), shape, str(path))
    config = folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"hidden_size": 64, "head_dim": 16}))
    root.tables["more"] = root.tables["pretrain"] | {"step": "pretrain", "model": str(folder)}
    root.tables["train"] = {"steps": ["more"]}


CASES: dict[Callable[[Root], None], str] = {
    heads: "pretrain.model.*width 32 must be a multiple of heads 5",
    long_rows: r"pretrain\.model\.context = 16: rows are 32 tokens long",
    other_tokenizer: "made with another tokenizer than the one published now: run `tokens` again",
    mesh: r"pretrain: mesh\..*do not multiply to 1 workers",
    tensors_and_stages: "do not multiply to 1 workers",
    compiled_tensors: r"pretrain\.compile: split tensors \(mesh\.tensor\) are not compiled|do not multiply to 1",
    missing_shard: r"shard-00000\.bin: is missing, as the manifest of `tokens` says",
    short_shard: r"shard-00000\.bin: has [\d,]+ bytes, not [\d,]+, as the manifest",
    no_shards: "tokens has not been published",
    other_model: r"has the shape \(\d+, 32\), not \(\d+, 64\) as config\.json says: is it another model's\?",
}


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_and_status_2_before_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spoil: Callable[[Root], None]
) -> None:
    recipe = recipe_at(tmp_path / "root", max_steps=1, validation_samples=4)
    publish_tokens(recipe)
    root = Root(Path(recipe.root), json.loads(json.dumps(recipe.tables)))
    spoil(root)
    path = tmp_path / "test.toml"
    whole = {"root": recipe.root, "seed": 3, **root.tables}
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in whole.items()))
    monkeypatch.setattr(cluster, "start", lambda recipe: pytest.fail("an engine was started"))
    name = root.tables["train"].get("steps", ["pretrain"])[0]
    for entry, arguments in (
        (lambda: cluster.job(train.step, ("dataeng.", "training.")), [str(path)]),
        (lambda: cli.run(command.main), [str(path), name]),
    ):
        monkeypatch.setattr(sys, "argv", ["train", *arguments])
        with pytest.raises(SystemExit) as end:
            entry()
        assert end.value.code == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert re.search(CASES[spoil], line), line
