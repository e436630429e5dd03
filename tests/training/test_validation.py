"""The loss on held-back rows by source: that of the source's own rows, whatever the workers and micro-batches."""

import json
import math

import pytest
import torch

from dataeng.report.collect import summary
from dataeng.report.table import rows_of
from dataeng.report.write import html
from dataeng.tokens.shards import open_split
from tests.training.tools import SAMPLE, publish_tokens, recipe_at
from training.context import Context
from training.data import stream
from training.methods import pretrain
from training.model.decoder import Decoder, init_weights
from training.validation import validator

SOURCES = ("books", "code", "web")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    made = recipe_at(tmp_path_factory.mktemp("sources"), max_steps=2, micro_batch=5)
    publish_tokens(made, documents=90, sources=SOURCES)
    return made


@pytest.fixture(scope="module")
def model(recipe):
    _, layout, _ = pretrain._layout(recipe, "pretrain")
    made = Decoder(recipe.step("pretrain").model, layout.vocabulary)
    init_weights(made, 1)
    return made.eval()


class Part(Context):
    """One rank of several; ``total`` keeps this rank's numbers and gives the sums that it is told."""

    def total(self, values):
        self.kept = list(values)
        return getattr(self, "sums", self.kept)


def measured(recipe, model, world, samples, limit=25):
    folder, layout, details = pretrain._layout(recipe, "pretrain")
    split = open_split(folder, details, "validation")
    rows = pretrain.rows_of(recipe, layout, samples, False, "test")
    ranks = [Part(recipe, "pretrain", recipe.step("pretrain"), rank, world) for rank in range(world)]
    checks = []
    for rank in ranks:
        held_back = stream.validation_rows(rank, split, rows, SAMPLE // 2, limit)
        checks.append(validator(rank, held_back, list(split)))
        with torch.no_grad():
            checks[-1](model)
    ranks[0].sums = [math.fsum(numbers) for numbers in zip(*(rank.kept for rank in ranks), strict=True)]
    with torch.no_grad():
        return checks[0](model), split, rows


def test_each_source_has_the_loss_of_its_own_rows(recipe, model):
    found, split, rows = measured(recipe, model, 1, 5)
    context = Context(recipe, "pretrain", recipe.step("pretrain"))
    assert set(found) == {"validation_loss", "validation_perplexity", *(f"validation_loss/{name}" for name in SOURCES)}
    for index, name in enumerate(sorted(SOURCES)):
        alone = stream.validation_rows(context, {name: split[name]}, rows, SAMPLE // 2, 9 - (index > 0))
        with torch.no_grad():
            sums = [pretrain.loss(model, batch)[:2] for batch in alone]
        mean = sum(float(total) for total, _ in sums) / sum(int(weight) for _, weight in sums)
        assert found[f"validation_loss/{name}"] == pytest.approx(mean, rel=1e-6)
    assert len({found[f"validation_loss/{name}"] for name in SOURCES}) == 3


def test_workers_and_micro_batches_change_nothing(recipe, model):
    wanted = measured(recipe, model, 1, 5)[0]
    for world, samples in ((2, 5), (3, 2), (4, 7)):
        assert measured(recipe, model, world, samples)[0] == pytest.approx(wanted, rel=1e-6)


def test_rows_tensorboard_and_the_report_show_every_source(recipe):
    pretrain.run(Context.single(recipe, "pretrain"))
    folder = f"{recipe.root}/pretrain"
    with open(f"{folder}/metrics.jsonl") as file:
        row = json.loads(file.read().splitlines()[-1])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{folder}/tensorboard")
    events.Reload()
    for name in SOURCES:
        [event] = events.Scalars(f"validation_loss/{name}")
        assert event.value == pytest.approx(row[f"validation_loss/{name}"])
    found = json.loads(json.dumps(summary(recipe)))
    assert set(found["training"][0]["by_source"]) == set(SOURCES)
    assert ("    code", f"{row['validation_loss/code']:,.4f}") in rows_of(found)
    assert "(books " in html(found)
