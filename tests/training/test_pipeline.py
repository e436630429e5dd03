"""Stages of a model: the order of micro-batches, which blocks stand where, and runs that change their layout."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import distributed as dist

from dataeng.cli import UserError
from dataeng.stage import need_manifest
from tests.training.tools import publish_tokens, recipe_at, start_ranks
from training import flops, memory, pipeline, stages, train
from training.context import Context
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder
from training.stages import Stage

SHAPE = {"layers": 5, "width": 32, "heads": 4, "kv_heads": 2, "context": 32, "ffn": 64}
sizes = st.integers(1, 9)


@given(sizes, sizes)
def test_turns_keep_few_micro_batches_begun_and_never_wait_for_each_other(count, batches):
    made = [pipeline.turns(index, count, batches) for index in range(count)]
    swaps = []  # of each stage in order: what an exchange sends and receives (forward, micro-batch, from, to)
    for index, order in enumerate(made):
        ways = [turn.forward for turn in order]
        assert ways.count(True) == ways.count(False) == batches
        begun = [2 * sum(ways[: place + 1]) - place - 1 for place in range(len(ways))]
        assert max(begun) == min(count - index, batches)
        assert 0 == begun[-1] <= min(begun)
        gaps = [set() for _ in range(len(order) + 1)]
        for place, (forward, source, to) in enumerate(order):
            number = ways[:place].count(forward)
            if source is not None:
                gaps[place].add((forward, number, source, index))
            if to is not None:
                gaps[place + 1].add((forward, number, index, to))
        swaps.append(gaps)
    at = [0] * count  # an exchange ends once all of its other ends have been reached: NCCL's rule, stricter than gloo's
    for _ in range(count * (2 * batches + 1)):
        reached = [set().union(*gaps[: place + 1]) for gaps, place in zip(swaps, at, strict=True)]
        for index, gaps in enumerate(swaps):
            if at[index] < len(gaps) and all(
                one in reached[other] for one in gaps[at[index]] for other in one[2:] if other != index
            ):
                at[index] += 1
    assert at == [2 * batches + 1] * count


@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from([50, 5_000, 200_000]))
def test_stages_take_all_blocks_in_order_and_the_head_counts(layers, count, vocabulary):
    config = ModelConfig(**SHAPE | {"layers": layers})
    if count > layers:
        with pytest.raises(ValueError, match="cannot be cut"):
            stages.shares(config, vocabulary, count)
        return
    parts = stages.shares(config, vocabulary, count)
    assert [block for part in parts for block in part] == list(range(layers))
    assert min(map(len, parts)) >= 1
    rest = [len(part) for part in parts[:-1]]
    assert not rest or max(rest) - min(rest) <= 1
    assert not rest or len(parts[-1]) <= max(rest)
    if vocabulary == 200_000 and count > 1:
        assert len(parts[-1]) == 1


@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_model_has_each_parameter_under_its_name(tied):
    config = ModelConfig(**SHAPE, tied=tied, positions="learned")
    whole, found = Decoder(config, 50), []
    for index in range(3):
        part = Decoder(config, 50)
        stages.cut(part, Stage(index, 3))
        part.tie()
        found += [name for name, _ in part.named_parameters()]
        assert {name: tuple(value.shape) for name, value in whole.named_parameters()} == part.stage.shapes
        assert flops.per_token(part, 32) == flops.per_token(whole, 32)
        assert stages.blocks_of(part) == 5
    doubled = ["embed_tokens.weight"] if tied else []
    assert sorted(found) == sorted([*(name for name, _ in whole.named_parameters()), *doubled])


def values(layout):
    """A run's settings: constant rates, so that a later part of it may have more steps."""
    return {"model": SHAPE, "schedule": "constant", "micro_batch": 2, "validate_every": 1, "mesh": layout}


def _child(rank, root, world, layout, steps, more=None):
    torch.set_num_threads(1)
    store = f"file://{root}/store-{world}-{steps}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    recipe = recipe_at(root, **values(layout) | (more or {}), max_steps=steps)
    train.run_steps(recipe, ["pretrain"], Context.distributed)
    dist.destroy_process_group()


def rows(root):
    return [json.loads(line) for line in Path(root, "pretrain", "metrics.jsonl").read_text().splitlines()]


def test_a_run_goes_on_in_other_layouts_and_exports_the_same(tmp_path):
    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    alone.mkdir()
    publish_tokens(recipe_at(alone), sources=("web", "books"))
    shutil.copytree(alone, mixed)
    pretrain.run(Context.single(recipe_at(alone, **values({}), max_steps=6), "pretrain"))
    start_ranks(_child, (str(mixed), 4, {"pipeline": 2}, 2), 4)
    assert need_manifest(str(mixed), "pretrain", "test").details["resumed_from"] == 0
    pretrain.run(Context.single(recipe_at(mixed, **values({}), max_steps=4), "pretrain"))
    assert need_manifest(str(mixed), "pretrain", "test").details["resumed_from"] == 2
    start_ranks(_child, (str(mixed), 2, {"pipeline": 2}, 6), 2)
    assert need_manifest(str(mixed), "pretrain", "test").details["resumed_from"] == 4
    expected, made = rows(alone), rows(mixed)
    assert [row["step"] for row in made] == list(range(1, 7))
    for one, other in zip(expected, made, strict=True):
        assert set(one) == set(other)
        for key in ("loss", "validation_loss", "validation_loss/web"):
            assert other[key] == pytest.approx(one[key], abs=1e-5), (one["step"], key)
        assert other["norm"] == pytest.approx(one["norm"], rel=1e-3)
    one, other = (load_file(root / "pretrain" / "export" / "model.safetensors") for root in (alone, mixed))
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_stages_go_on_bit_for_bit(tmp_path, optimizer):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    whole.mkdir()
    publish_tokens(recipe_at(whole))
    shutil.copytree(whole, halved)
    for root, steps in ((whole, 4), (halved, 2), (halved, 4)):
        start_ranks(_child, (str(root), 2, {"pipeline": 2}, steps, {"optimizer": optimizer}), 2)
    assert need_manifest(str(halved), "pretrain", "test").details["resumed_from"] == 2
    keys = ("step", "loss", "norm", "validation_loss")
    assert [[row[key] for key in keys] for row in rows(halved)] == [[row[key] for key in keys] for row in rows(whole)]


def test_a_stage_needs_its_own_part_and_room_for_what_it_began():
    config = {"model": SHAPE | {"layers": 8}, "micro_batch": 4, "batch": 64, "precision": "fp32"}
    whole, half, one = (
        memory.need(pretrain.Config(**config | more), 500, gpus, 32)
        for more, gpus in (({}, 1), ({"mesh": {"pipeline": 2}}, 2), ({"mesh": {"pipeline": 2}, "batch": 4}, 2))
    )
    assert (half.parameters, half.flops) == (whole.parameters, whole.flops)
    assert 0.45 < half.weights / whole.weights < 0.75  # both ends have the tied matrix
    assert one.activations < half.activations < 1.2 * whole.activations
    with pytest.raises(UserError, match="at most one stage for each of the model's layers = 8"):
        memory.need(pretrain.Config(**config, mesh={"pipeline": 9}), 500, 9, 32)


@pytest.mark.parametrize("kind", ["sft", "dpo", "ppo"])
def test_stages_are_for_pretraining(tmp_path, kind):
    recipe = recipe_at(tmp_path)
    recipe.tables[kind] = {"mesh": {"pipeline": 2}}
    with pytest.raises(UserError, match=f"{kind}.mesh: only pretraining splits tensors, rows or blocks"):
        train.check(recipe, [kind], [2])
