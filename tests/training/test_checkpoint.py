"""Checkpoints: resume bit for bit, never half a one, damage falls back."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from dataeng import stage
from tests.training.tools import publish_tokens, recipe_at
from training import checkpoint
from training.context import Context
from training.methods import pretrain


def run(recipe, rank=0, world=1, port=0):
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    pretrain.run(Context.distributed(recipe, "pretrain"))
    if world > 1:
        dist.destroy_process_group()


def _child(rank, recipe, world, port, killed_after):
    """A rank; rank 0 kills itself when the save after that step would be published."""
    if killed_after is not None and rank == 0:
        publish = checkpoint.Checkpoints._publish

        def dying(self, saved, folder, attempt, files, facts):
            if facts["step"] == killed_after:
                saved.result()  # all bytes are written, the manifest is not
                os.kill(os.getpid(), signal.SIGKILL)
            publish(self, saved, folder, attempt, files, facts)

        checkpoint.Checkpoints._publish = dying
    run(recipe, rank, world, port)


def spawn(recipe, world=1, killed_after=None):
    """Run pretraining in processes of its own; whether they ended well."""
    port = 20000 + os.getpid() % 20000 + world
    try:
        mp.spawn(_child, (recipe, world, port, killed_after), nprocs=world)
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        return False
    return True


def rows(root):
    text = Path(root, "pretrain", "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(root):
    return [(row["step"], row["position"], row["loss"], row["norm"]) for row in rows(root)]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    publish_tokens(recipe_at(root), sources=("web", "books"))
    return root


@pytest.fixture(scope="module")
def uninterrupted(published, tmp_path_factory):
    """Losses of whole runs by worker count, each made once."""
    made = {}

    def of(world):
        if world not in made:
            root = tmp_path_factory.mktemp(f"whole{world}")
            shutil.copytree(published, root, dirs_exist_ok=True)
            assert spawn(recipe_at(root), world)
            made[world] = root
        return made[world]

    return of


def copy_of(published, tmp_path):
    shutil.copytree(published, tmp_path, dirs_exist_ok=True)
    return recipe_at(tmp_path)


def details(recipe):
    return stage.need_manifest(recipe.root, "pretrain", "test").details


@pytest.mark.parametrize("world", [1, 2])
def test_killed_in_a_save_resumes_from_the_one_before_bit_for_bit(published, uninterrupted, tmp_path, world):
    recipe = copy_of(published, tmp_path)
    assert not spawn(recipe, world, killed_after=4)
    assert not (tmp_path / "pretrain" / "manifest.json").exists()
    assert spawn(recipe, world)
    assert details(recipe)["resumed_from"] == 2
    assert losses(tmp_path) == losses(uninterrupted(world))
    one, two = (
        Path(root, "pretrain/export/model.safetensors").read_bytes() for root in (tmp_path, uninterrupted(world))
    )
    assert one == two


def test_another_worker_count_goes_on_with_the_same_samples(published, uninterrupted, tmp_path):
    recipe = copy_of(published, tmp_path)
    assert not spawn(recipe, 2, killed_after=4)
    assert spawn(recipe, 1)
    assert details(recipe)["resumed_from"] == 2
    for mine, whole in zip(losses(tmp_path), losses(uninterrupted(2)), strict=True):
        assert mine[:2] == whole[:2]
        assert mine[2] == pytest.approx(whole[2], abs=1e-5)


def test_one_and_two_workers_have_the_same_losses(uninterrupted):
    for one, two in zip(losses(uninterrupted(1)), losses(uninterrupted(2)), strict=True):
        assert one[:2] == two[:2]
        assert one[2] == pytest.approx(two[2], abs=1e-5)
        assert one[3] == pytest.approx(two[3], rel=1e-4)


def stopped_after_five(published, tmp_path):
    """A root with checkpoints after steps 2 and 4, and a recipe that goes on from them."""
    recipe = copy_of(published, tmp_path)
    assert not spawn(recipe, killed_after=6)
    return recipe, sorted((tmp_path / "pretrain/checkpoints").glob("*/step-*"))[:2]


def damage(folder, how):
    manifest = folder / "manifest.json"
    [attempt] = [path for path in folder.iterdir() if path.is_dir()]
    [shard] = attempt.glob("*.distcp")
    if how == "bytes":
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif how == "short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif how == "missing":
        shard.unlink()
    elif how == "metadata":
        (attempt / ".metadata").write_bytes(b"\0" * (attempt / ".metadata").stat().st_size)
    else:
        manifest.write_text(manifest.read_text()[:40])


@pytest.mark.parametrize("how", ["bytes", "short", "missing", "metadata", "manifest"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(published, uninterrupted, tmp_path, how):
    recipe, (_, newest) = stopped_after_five(published, tmp_path)
    damage(newest, how)
    run(recipe)
    assert details(recipe)["resumed_from"] == 2
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_with_all_checkpoints_damaged_training_starts_again(published, uninterrupted, tmp_path):
    recipe, both = stopped_after_five(published, tmp_path)
    for folder in both:
        damage(folder, "bytes")
    run(recipe)
    assert details(recipe)["resumed_from"] == 0
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_another_learning_rate_does_not_continue_but_other_intervals_do(published, tmp_path):
    stopped_after_five(published, tmp_path)
    other = recipe_at(tmp_path, learning_rate=2e-2)
    run(other)
    assert details(other)["resumed_from"] == 0
    same = recipe_at(tmp_path, checkpoint_every=3, keep=1)
    run(same)
    assert details(same)["resumed_from"] == 4


def test_more_steps_continue_only_where_the_schedule_allows(published, tmp_path):
    flat = {"schedule": "constant"}
    publish = copy_of(published, tmp_path)
    run(recipe_at(publish.root, max_steps=4, **flat))
    longer = recipe_at(publish.root, max_steps=6, **flat)
    run(longer)
    assert details(longer)["resumed_from"] == 4
    run(recipe_at(publish.root, max_steps=4, schedule="cosine"))
    cosine = recipe_at(publish.root, max_steps=6, schedule="cosine")
    run(cosine)
    assert details(cosine)["resumed_from"] == 0


def test_old_checkpoints_are_pruned(uninterrupted):
    steps = sorted(Path(uninterrupted(1), "pretrain/checkpoints").glob("*/step-*/manifest.json"))
    assert [path.parent.name for path in steps] == ["step-00000004", "step-00000006"]
