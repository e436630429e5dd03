"""A root with tasks and a tiny untrained model, from which every later method can start."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer

from dataeng import stage
from dataeng.acquire import tasks
from dataeng.recipe import Recipe
from dataeng.tokens import chat, tokenizer
from training import huggingface
from training.context import Context
from training.model.assemble import assemble
from training.model.config import ModelConfig
from training.model.decoder import init_weights
from training.trainer import Result

TINY = ModelConfig(layers=1, width=32, heads=2, context=64)
TABLES = {
    "tasks": {"train": 96, "test": 24, "preferences": 64, "preferences_test": 24},
    "pretrain": {"model": TINY.model_dump(exclude={"kv_heads", "ffn"})},
}


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory) -> str:
    """The path of a tokenizer learned from the tasks' own words."""
    texts = [" ".join([item["instruction"], item["output"]]) for item in tasks.tables(tasks.Config(), 0)["train"]]
    made = tokenizer.learn(texts, tokenizer.Config(vocabulary=512))
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return str(path)


def publish_model(recipe: Recipe, name: str, config: ModelConfig, tokenizer_path: str, seed: int = 1) -> None:
    """Publish an untrained decoder (or encoder–decoder) as the step ``name``."""
    attempt = stage.begin(recipe, name, [])
    assert isinstance(attempt, stage.Attempt)
    model = assemble(config, Tokenizer.from_file(tokenizer_path).get_vocab_size())
    init_weights(model, seed)
    context = Context(recipe, name, recipe.step(name))
    huggingface.publish(context, attempt, model, config, tokenizer_path, Result(0, 0, 0, {}, 0, 0.0), {})


@pytest.fixture
def root(tmp_path, small_tokenizer):
    """Makes recipes over one root that holds `tasks` and `pretrain`; ``more`` are further tables."""
    torch.manual_seed(0)

    def make(**more) -> Recipe:
        common = {"max_steps": 3, "precision": "fp32", "checkpoint_every": 100, "log_every": 100}
        tables = {name: ({} if name == "evaluate" else common) | values for name, values in more.items()}
        return Recipe("test.toml", str(tmp_path), 1, TABLES | tables)

    first = make()
    tasks.step(first)
    publish_model(first, "pretrain", TINY, small_tokenizer)
    return make


@pytest.fixture
def small(small_tokenizer):
    """The tokenizer itself."""
    loaded = Tokenizer.from_file(small_tokenizer)
    assert chat.stop_ids(loaded)
    return loaded
