"""Training on Ray, killed: it goes on from its last whole checkpoint, with the losses of a run left alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dataeng import stage
from tests.training.tools import SAMPLE, publish_tokens, recipe_at

pytestmark = pytest.mark.e2e
STEPS, EVERY = 1000, 25
RECIPE = f"""
root = "ROOT"
seed = 3
[ray]
cpus = 4
[tokens]
sample_tokens = {SAMPLE}
[train]
steps = ["pretrain"]
workers = 2
threads = 1
[pretrain]
max_steps = {STEPS}
batch = 6
micro_batch = 3
learning_rate = 1e-2
optimizer = "adamw"
precision = "fp32"
checkpoint_every = {EVERY}
keep = {STEPS}
window = 8
[pretrain.model]
layers = 2
width = 32
heads = 4
kv_heads = 2
context = {SAMPLE}
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    publish_tokens(recipe_at(root))
    return root


def root_of(published: Path, folder: Path) -> Path:
    shutil.copytree(published, folder / "root")
    (folder / "recipe.toml").write_text(RECIPE.replace("ROOT", str(folder / "root")))
    return folder


def start(repo: Path, folder: Path, *overrides: str) -> subprocess.Popen:
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, repo / "ray_jobs" / "train.py", folder / "recipe.toml", *overrides],
            cwd=repo,
            stdout=log,
            stderr=log,
        )


def finished(process: subprocess.Popen, folder: Path) -> Path:
    assert process.wait() == 0, (folder / "log").read_text()[-3000:]
    return folder


def family(pid: int) -> dict[int, str]:
    """All processes that ``pid`` started, directly or not, each with its command."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, new = {}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new and child not in found}
        found |= {child: names.get(child, "") for child in new}
    return found


def losses(folder: Path) -> list[tuple]:
    lines = (folder / "root/pretrain/metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["position"], row["loss"]) for row in map(json.loads, lines)]


def resumed_from(folder: Path) -> int:
    return stage.need_manifest(str(folder / "root"), "pretrain", "test").details["resumed_from"]


@pytest.fixture(scope="module")
def whole(published, repo, tmp_path_factory):
    folder = root_of(published, tmp_path_factory.mktemp("whole"))
    return losses(finished(start(repo, folder), folder))


def newest(folder: Path) -> int:
    found = folder.glob("root/pretrain/checkpoints/*/step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def resumptions(folder: Path) -> list[int]:
    """The steps at which workers went on, as they said."""
    return [int(step) for step in re.findall(r"resumed at step (\d+)", (folder / "log").read_text())]


def wait_for(process: subprocess.Popen, folder: Path, condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        time.sleep(0.02)


def kill_all(processes: Iterable[int]) -> None:
    for pid in processes:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_whatever_is_killed_the_run_goes_on_from_its_last_checkpoint(published, whole, repo, tmp_path):
    """A worker, the raylet and the driver of two; then SIGTERM where there is one worker; the rest with two again."""
    folder = root_of(published, tmp_path)
    process = start(repo, folder)
    wait_for(process, folder, lambda: newest(folder) >= 2 * EVERY)  # right after a save
    before = newest(folder)
    workers = [pid for pid, name in family(process.pid).items() if name.startswith("ray::RayTrainWorker")]
    assert len(workers) == 2
    kill_all(workers[:1])
    wait_for(process, folder, lambda: len(resumptions(folder)) == 1)
    assert before <= resumptions(folder)[0] <= before + EVERY
    wait_for(process, folder, lambda: newest(folder) >= resumptions(folder)[0] + EVERY)
    started = family(process.pid)
    kill_all(pid for pid, name in started.items() if "/raylet/raylet " in name)
    assert process.wait() == 1, "the job ends by itself"
    kill_all(started)
    before = newest(folder)

    process = start(repo, folder)
    wait_for(process, folder, lambda: len(resumptions(folder)) == 2 and newest(folder) > before)
    assert resumptions(folder)[1] == before
    started = family(process.pid)
    process.kill()
    process.wait()
    kill_all(started)
    by_two = newest(folder)
    assert stage.read_manifest(str(folder / "root/pretrain")) is None

    process = start(repo, folder, "train.workers=1")
    wait_for(process, folder, lambda: len(resumptions(folder)) == 3 and newest(folder) > by_two)
    assert resumptions(folder)[2] == by_two
    asked = time.time()
    process.terminate()
    assert process.wait() == 130, (folder / "log").read_text()[-3000:]
    before, text = newest(folder), (folder / "log").read_text()
    saved = max(path.stat().st_mtime for path in folder.glob("root/pretrain/checkpoints/*/step-*/manifest.json"))
    assert saved < asked + 30, "what a node that is taken away leaves time for"
    assert text.splitlines()[-1].startswith("error: train: stopped by SIGTERM")  # workers' last lines may be lost
    assert len(losses(folder)) == before < STEPS, "no step was taken that was not saved"

    finished(start(repo, folder), folder)
    assert resumed_from(folder) == resumptions(folder)[3] == before
    mine = losses(folder)
    assert mine[:by_two] == whole[:by_two], "through a worker's, the raylet's and the driver's death, bit for bit"
    assert [row[:2] for row in mine] == [row[:2] for row in whole]
    # One worker sums in another order than two, and hundreds of steps amplify rounding (test_checkpoint compares
    # the losses of few steps): the run learns as the whole one did.
    assert mine[-1][2] == pytest.approx(whole[-1][2], abs=0.05)


def test_torchrun_without_ray_saves_when_every_process_is_told_to_end_and_goes_on(published, repo, tmp_path):
    """As Slurm ends a job: a signal to all of its processes, which torchrun then hands on once more."""
    folder = root_of(published, tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "training"]
    with open(folder / "log", "a") as log:
        job = [*launch, folder / "recipe.toml", "pretrain"]
        process = subprocess.Popen(job, cwd=repo, stdout=log, stderr=log, start_new_session=True)
        wait_for(process, folder, lambda: newest(folder) >= EVERY)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() != 0
        before = newest(folder)
        assert len(losses(folder)) == before < STEPS, (folder / "log").read_text()[-3000:]
        assert subprocess.run(job, cwd=repo, stdout=log, stderr=log).returncode == 0
    assert resumed_from(folder) == before
