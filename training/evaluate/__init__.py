"""Step `evaluate`: perplexity on the test split, and answers to the test tasks, for every model made so far.

``python -m training.evaluate RECIPE [KEY=VALUE …]`` runs it in one process.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, Table, home, runtime
from dataeng.tokens.shards import Layout, open_split
from training import huggingface, parallel, posttrain
from training.context import Context
from training.data import stream
from training.data.check import check_shards, check_vocabulary
from training.evaluate import answers
from training.methods import pretrain
from training.settings import TrainerConfig


class Config(Table):
    """Which models to look at, on what, and how."""

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    step: str | None = runtime(None, description="The step, where the table's name is not its")
    models: list[str] = Field([], description="Training steps to look at; by default all of the recipe that are made")
    baseline: str = Field("sft", description="The model that others are compared with, where it is looked at")
    tokens: str | None = Field(
        "tokens", description='The stage whose split `test` perplexity is measured on; "" for none'
    )
    perplexity_samples: int = Field(128, ge=1, description="Samples of that split at most")
    tasks: str | list[str] | None = Field(
        "tasks", description='The stage with a table `test`, or JSONL files; "" for none'
    )
    samples: int = Field(4, ge=1, description="Sampled answers to each instruction")
    temperature: float = Field(1.0, gt=0, description="Temperature of sampled answers")
    new_tokens: int = Field(20, ge=1, description="Longest answer, in tokens, its end token included")
    seed: int = Field(0, ge=0, description="Seed of sampled answers, the same for every model")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Of matrix products")
    micro_batch: int = runtime(16, ge=1, description="Samples that a worker takes at once for perplexity")
    prompts: int = runtime(128, ge=1, description="Prompts that a worker answers at once")
    shown: int = Field(24, ge=0, description="Answers kept in the manifest, for the report")

    def settings(self) -> TrainerConfig:
        """What a model's layout and precision follow from."""
        return TrainerConfig.model_validate({"precision": self.precision, "micro_batch": self.micro_batch})


def made(recipe: Recipe, name: str) -> list[str]:
    """The models to look at: those named, else the recipe's training steps that are published and can answer.

    Raises UserError where there is none.
    """
    config: Config = recipe.step(name)
    if config.models:
        return config.models
    found = []
    for table in recipe.tables:
        trained = (home(recipe.kind(table)) or "").startswith("training.methods.") and recipe.kind(table) != "reward"
        if trained and stage.read_manifest(stage.folder_of(recipe.root, table)) and _answers(recipe, table, name):
            found.append(table)
    if not found:
        raise UserError(f"{recipe.path}: [{name}]: no model is published in {recipe.root}: run `train` first")
    return found


def _answers(recipe: Recipe, table: str, name: str) -> bool:
    folder = huggingface.export_of(recipe.root, table, name)
    return huggingface.read_config(folder)[0].kind in posttrain.ANSWERING


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: every model, the test split, the test tasks."""
    config: Config = recipe.step(name)
    entries = posttrain.model_inputs(recipe, name, *made(recipe, name))
    if config.tokens:
        [shards] = stage.stage_inputs(recipe.root, config.tokens, name, "test")
        manifest = stage.need_manifest(recipe.root, config.tokens, name)
        entries.append(shards | Layout.model_validate(manifest.details).cut("test"))
    if config.tasks:
        entries += posttrain.data_inputs(recipe, name, config.tasks, ["test"])
    return entries


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError where something that is to be measured is neither published nor ``coming``."""
    config: Config = recipe.step(name)
    posttrain.check_inputs(recipe, name, coming, config.models, config.tasks or [], ["test"], posttrain.ANSWERING)
    if config.tokens and config.tokens not in coming:
        layout = check_shards(recipe.root, config.tokens, name)
        for model in config.models or made(recipe, name):
            if model not in coming:
                check_vocabulary(recipe.root, layout, huggingface.export_of(recipe.root, model, name), name)


def row_width(sample_tokens: int, longest: int) -> int:
    """The longest rows that samples are cut into evenly, of at most as many tokens as a model's context."""
    return next(width for width in range(min(sample_tokens, longest), 0, -1) if sample_tokens % width == 0)


def perplexity(context: Context, model: nn.Module, tokens: str, longest: int) -> float | None:
    """Perplexity over at most ``perplexity_samples`` samples of the split `test`; None where it has no sample.

    ``longest``: the model's context in tokens; longer samples are cut into equal rows.
    """
    config: Config = context.config
    manifest = stage.need_manifest(context.recipe.root, tokens, context.name)
    layout = Layout.model_validate(manifest.details)
    streams = open_split(stage.folder_of(context.recipe.root, tokens), manifest.details, "test")
    rows = pretrain.rows_of(context.recipe, layout, config.micro_batch, False, context.name)
    width = row_width(layout.sample_tokens, longest)
    sums = [0.0, 0.0]
    for batch in stream.validation_rows(context, streams, rows, width, config.perplexity_samples):
        total, weight, _ = pretrain.loss(model, context.place(batch))
        sums = [sums[0] + float(total), sums[1] + float(weight)]
    loss, count = context.total(sums)
    return math.exp(min(loss / count, 700.0)) if count else None


def evaluated(context: Context, name: str, items: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """What is said of the model ``name``, and its judged answers to all items."""
    config: Config = context.config
    begun = time.monotonic()
    begin = posttrain.start(context, name)
    model = posttrain.frozen(context, begin.model, config.settings(), begin.state)
    facts: dict[str, Any] = {}
    streams = config.tokens and begin.architecture.kind == "decoder"  # a stream has no two sides
    with torch.no_grad(), parallel.gathered(model), parallel.autocast(context, config.settings()):
        if config.tokens:
            facts["perplexity"] = (
                perplexity(context, model, config.tokens, begin.architecture.context) if streams else None
            )
        judged = answers.answer(context, model, begin, items) if items else []
    if judged:
        facts["tasks"] = answers.summary(judged)
        facts["samples"] = answers.shown(judged, config.shown)
    facts["seconds"] = round(time.monotonic() - begun, 3)
    said = {key: round(value["accuracy"], 4) for key, value in facts.get("tasks", {}).items()}
    context.log("%s: perplexity %s, tasks %s, %.0f s", name, facts.get("perplexity"), said, facts["seconds"])
    return facts, judged


def run(context: Context) -> None:
    """Measure every model and publish ROOT/NAME, or find it done."""
    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    names = context.broadcast(made(context.recipe, context.name))
    items = posttrain.data_rows(context.recipe, context.name, config.tasks, "test") if config.tasks else []
    found = {name: evaluated(context, name, items) for name in names}
    if context.first:
        finish(attempt, config, found, len(items))
    context.barrier()


def finish(
    attempt: stage.Attempt, config: Config, found: dict[str, tuple[dict[str, Any], list[Any]]], items: int
) -> stage.Manifest:
    """Publish what ``evaluated`` said of each model, with each one's difference from the baseline."""
    facts = {name: dict(said) for name, (said, _) in found.items()}
    judged = {name: answers_of for name, (_, answers_of) in found.items()}
    for name in facts:
        if items and config.baseline in judged and name != config.baseline:
            facts[name]["difference"] = answers.differences(judged[name], judged[config.baseline])
    rows = [{"model": name, **row._asdict()} for name, own in judged.items() for row in own]
    path = storage.join(attempt.data_folder, "answers.jsonl")
    storage.write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    entry = stage.file_table(attempt.folder, [path]).model_copy(update={"rows": len(rows)})
    counts = {"models": len(facts), "items": items}
    return attempt.publish(attempt.manifest(tables={"answers": entry}, counts=counts, details={"models": facts}))
