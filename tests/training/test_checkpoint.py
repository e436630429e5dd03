"""Checkpoints: resume bit for bit, never half a one, damage falls back; ends that were asked for, and hangs."""

import functools
import json
import logging
import math
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing as mp

from dataeng import stage
from dataeng.cli import Failure, Stopped
from tests.training.tools import publish_tokens, recipe_at, start_ranks
from training import checkpoint, trainer
from training.context import Context
from training.methods import pretrain
from training.settings import TrainerConfig


def run(recipe, rank=0, world=1, port=0):
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    pretrain.run(Context.distributed(recipe, "pretrain"))
    if world > 1:
        dist.destroy_process_group()


def _child(rank, recipe, world, port, killed_after, disturb):
    """A rank; rank 0 kills itself when the save after that step would be published."""
    if disturb is not None:
        disturb(rank)
    if killed_after is not None and rank == 0:
        publish = checkpoint.Checkpoints._publish

        def dying(self, saved, folder, attempt, files, facts):
            if facts["step"] == killed_after:
                saved.result()  # all bytes are written, the manifest is not
                os.kill(os.getpid(), signal.SIGKILL)
            publish(self, saved, folder, attempt, files, facts)

        checkpoint.Checkpoints._publish = dying
    run(recipe, rank, world, port)


def spawn(recipe, world=1, killed_after=None, disturb=None):
    """Run pretraining in processes of its own, each disturbed by ``disturb(rank)``; whether they ended well."""
    port = 20000 + os.getpid() % 20000 + world
    if world == 1 and killed_after is None:
        run(recipe)
        return True
    try:
        start_ranks(_child, (recipe, world, port, killed_after, disturb), world)
    except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
        print("a rank ended:", error)
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


def test_other_worker_counts_go_on_with_the_same_samples(published, uninterrupted, tmp_path):
    recipe = copy_of(published, tmp_path)
    assert not spawn(recipe, 2, killed_after=4)
    assert not spawn(recipe, 3, killed_after=6)
    run(recipe)
    assert details(recipe)["resumed_from"] == 4
    for mine, whole in zip(losses(tmp_path), losses(uninterrupted(2)), strict=True):
        assert mine[:2] == whole[:2]
        assert mine[2] == pytest.approx(whole[2], abs=1e-5)


def _terminated_at_three(rank):
    """Rank 1 gets SIGTERM in its third step."""
    update = trainer._Run.update

    def updated(self, step):
        if rank == 1 and self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, step)

    trainer._Run.update = updated


def test_sigterm_to_one_rank_saves_and_ends_all_and_a_rerun_goes_on(published, uninterrupted, tmp_path):
    recipe = copy_of(published, tmp_path)
    assert not spawn(recipe, 2, disturb=_terminated_at_three)
    assert stage.read_manifest(str(tmp_path / "pretrain")) is None
    assert spawn(recipe, 2)
    assert details(recipe)["resumed_from"] == 3
    assert losses(tmp_path) == losses(uninterrupted(2))


def test_asked_to_end_it_says_where_and_asked_to_leave_it_saves_once_and_goes_on(published, tmp_path, monkeypatch):
    monkeypatch.setattr("training.stop.LOOK_EVERY_SECONDS", 0.0)
    recipe = recipe_at(copy_of(published, tmp_path).root, checkpoint_every=100)
    wishes = iter([None, "save", "save", "save", "stop"])
    context = Context.single(recipe, "pretrain")
    context.notice = lambda: next(wishes)
    with pytest.raises(Stopped, match=r"at step 5, saved; run it again"):
        pretrain.run(context)
    kept = sorted(Path(tmp_path, "pretrain/checkpoints").glob("*/step-*/manifest.json"))
    assert [path.parent.name for path in kept] == ["step-00000002", "step-00000005"]
    run(recipe)
    assert details(recipe)["resumed_from"] == 5


def _sleeps_at_three(rank):
    """Rank 1 waits for its third batch, for ever."""
    ask = trainer._Run.next

    def asked(self, steps):
        step = ask(self, steps)
        if rank == 1 and self.step == 2:
            time.sleep(3600)
        return step

    trainer._Run.next = asked


def test_a_hang_ends_with_a_dump_of_where_each_rank_stood(published, tmp_path):
    recipe = copy_of(published, tmp_path)
    recipe.tables["train"]["collective_timeout_seconds"] = 4
    begun = time.monotonic()
    assert not spawn(recipe, 2, disturb=_sleeps_at_three)
    assert time.monotonic() - begun < 1800, "torch's own limit"
    waiting, sleeping = ((tmp_path / "pretrain" / f"hang-{rank}.txt").read_text() for rank in (0, 1))
    assert "process 0 of 2 was in `" in waiting.splitlines()[0]
    assert waiting.splitlines()[0].endswith("of step 2")
    assert "process 1 of 2 was in `data` of step 2" in sleeping.splitlines()[0]
    assert "in asked" in sleeping, "the stack says which line"


def test_one_and_two_workers_have_the_same_losses(uninterrupted):
    for one, two in zip(losses(uninterrupted(1)), losses(uninterrupted(2)), strict=True):
        assert one[:2] == two[:2]
        assert one[2] == pytest.approx(two[2], abs=1e-5)
        assert one[3] == pytest.approx(two[3], rel=1e-4)


@pytest.fixture(scope="module")
def stopped(published, tmp_path_factory):
    """A root with checkpoints after steps 2 and 4, and half of one after step 6."""
    root = tmp_path_factory.mktemp("stopped")
    assert not spawn(copy_of(published, root), killed_after=6)
    return root


def stopped_after_five(stopped, tmp_path):
    """A copy of it, and its two checkpoints."""
    recipe = copy_of(stopped, tmp_path)
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
def test_a_damaged_checkpoint_falls_back_to_the_one_before(stopped, uninterrupted, tmp_path, how):
    recipe, (_, newest) = stopped_after_five(stopped, tmp_path)
    damage(newest, how)
    run(recipe)
    assert details(recipe)["resumed_from"] == 2
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_with_all_checkpoints_damaged_training_starts_again(stopped, uninterrupted, tmp_path):
    recipe, both = stopped_after_five(stopped, tmp_path)
    for folder in both:
        damage(folder, "bytes")
    run(recipe)
    assert details(recipe)["resumed_from"] == 0
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_another_learning_rate_does_not_continue_but_other_intervals_do(stopped, tmp_path):
    stopped_after_five(stopped, tmp_path)
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


def test_one_that_breaks_while_it_is_loaded_leaves_no_half_loaded_weights(stopped, uninterrupted, tmp_path):
    recipe, _ = stopped_after_five(stopped, tmp_path)
    load, calls = checkpoint.dcp.load, []

    def broken(state, **more):
        calls.append(1)
        load(state, **more)
        if len(calls) <= bad:
            raise OSError("the disk went away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.dcp, "load", broken)
        bad = 9
        with pytest.raises(Failure, match="could not be loaded"):
            run(recipe)
        calls.clear()
        bad = 1
        run(recipe)
    assert details(recipe)["resumed_from"] == 2
    assert losses(tmp_path) == losses(uninterrupted(1))


def kept(root):
    return sorted(
        int(path.parent.name[5:]) for path in Path(root, "pretrain/checkpoints").glob("*/step-*/manifest.json")
    )


def test_a_run_that_starts_anew_keeps_its_own_checkpoints(published, tmp_path):
    root = copy_of(published, tmp_path).root
    run(recipe_at(root, max_steps=6, keep=1, schedule="cosine"))
    assert kept(root) == [6]
    longer = recipe_at(root, max_steps=8, keep=1, schedule="cosine")
    assert not spawn(longer, killed_after=6)  # steps 2 and 4 are saved, 6 in vain: another run's stands there
    assert kept(root) == [4, 6]
    run(longer)
    assert details(longer)["resumed_from"] == 4
    assert kept(root) == [8]


def test_a_whole_checkpoint_takes_the_place_of_a_damaged_one(stopped, tmp_path):
    recipe, (_, newest) = stopped_after_five(stopped, tmp_path)
    damage(newest, "bytes")
    assert not spawn(recipe, killed_after=6)  # after 4 was saved again
    run(recipe)
    assert details(recipe)["resumed_from"] == 4


def test_what_cannot_be_read_is_not_taken_for_damage(stopped, uninterrupted, tmp_path, monkeypatch):
    recipe, _ = stopped_after_five(stopped, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.HashedFiles, "verify", lambda self, name: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(Failure, match=r"could not be read .*disk full.*run again"):
            run(recipe)
    run(recipe)
    assert details(recipe)["resumed_from"] == 4
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_a_resumed_curve_is_the_runs_own(stopped, uninterrupted, tmp_path):
    recipe, _ = stopped_after_five(stopped, tmp_path)
    run(recipe_at(tmp_path, learning_rate=2e-2))
    run(recipe_at(tmp_path, max_steps=3))  # the same fingerprint of checkpoints
    run(recipe)
    assert details(recipe)["resumed_from"] == 4
    assert losses(tmp_path) == losses(uninterrupted(1))


def test_another_run_may_not_go_on_from_within_a_rollout(stopped, tmp_path):
    flat = {"schedule": "constant", "keep": 1}
    recipe = recipe_at(copy_of(stopped, tmp_path).root, max_steps=4, **flat)
    run(recipe)
    [path] = (
        path
        for path in Path(tmp_path, "pretrain/checkpoints").glob("*/step-00000004/manifest.json")
        if json.loads(path.read_text())["max_steps"] == 4
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bound": False}))
    longer = recipe_at(tmp_path, max_steps=6, **flat)
    run(longer)
    assert details(longer)["resumed_from"] == 0


def test_checkpoints_are_kept_by_number_by_interval_and_by_validation_loss():
    scores = {10: 3.0, 20: 2.0, 30: math.inf, 40: 2.5, 50: 2.1, 60: math.inf}
    kept = functools.partial(checkpoint.kept_steps, scores)
    assert kept(TrainerConfig(max_steps=99, keep=2)) == {50, 60}
    assert kept(TrainerConfig(max_steps=99, keep=1, keep_every=20)) == {20, 40, 60}
    assert kept(TrainerConfig(max_steps=99, keep=1, keep_best=2)) == {20, 50, 60}


def test_a_run_keeps_those_and_says_what_may_differ(published, tmp_path, caplog):
    caplog.set_level(logging.INFO, "millrace")
    rules = {"validate_every": 1, "checkpoint_every": 1, "keep": 1, "keep_every": 3}
    root = copy_of(published, tmp_path).root
    run(recipe_at(root, schedule="constant", max_steps=4, **rules))
    run(recipe_at(root, schedule="constant", micro_batch=2, **rules))
    steps = sorted(Path(root, "pretrain/checkpoints").glob("*/step-*/manifest.json"))
    assert [path.parent.name for path in steps] == ["step-00000003", "step-00000006"]
    assert "losses can differ by rounding: micro_batch 3 → 2" in caplog.text
    assert not list(Path(root, "pretrain/checkpoints").glob("*/step-00000005/**/*.*")), (
        "nothing is left of a pruned one"
    )


def test_old_checkpoints_are_pruned(uninterrupted):
    steps = sorted(Path(uninterrupted(1), "pretrain/checkpoints").glob("*/step-*/manifest.json"))
    assert [path.parent.name for path in steps] == ["step-00000004", "step-00000006"]
