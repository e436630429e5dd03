"""Training on Ray, killed: it goes on from its last whole checkpoint, with the losses of a run left alone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataeng import stage
from tests.training.tools import SAMPLE, publish_tokens, recipe_at

pytestmark = pytest.mark.e2e
STEPS, EVERY = 300, 20
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


def wait_for_checkpoints(process: subprocess.Popen, folder: Path, number: int) -> None:
    while len(list(folder.glob("root/pretrain/checkpoints/*/step-*/manifest.json"))) < number:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        time.sleep(0.02)


def losses(folder: Path) -> list[tuple]:
    lines = (folder / "root/pretrain/metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["position"], row["loss"]) for row in map(json.loads, lines)]


def resumed_from(folder: Path) -> int:
    return stage.need_manifest(str(folder / "root"), "pretrain", "test").details["resumed_from"]


@pytest.fixture(scope="module")
def whole(published, repo, tmp_path_factory):
    folder = root_of(published, tmp_path_factory.mktemp("whole"))
    return losses(finished(start(repo, folder), folder))


def test_a_killed_worker_is_replaced_and_goes_on_from_a_checkpoint(published, whole, repo, tmp_path):
    folder = root_of(published, tmp_path)
    process = start(repo, folder)
    wait_for_checkpoints(process, folder, 2)
    workers = [pid for pid, name in family(process.pid).items() if name.startswith("ray::RayTrainWorker")]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    finished(process, folder)
    assert resumed_from(folder) >= 2 * EVERY
    assert resumed_from(folder) % EVERY == 0
    assert losses(folder) == whole


def test_a_killed_driver_is_run_again_with_one_worker(published, whole, repo, tmp_path):
    folder = root_of(published, tmp_path)
    process = start(repo, folder)
    wait_for_checkpoints(process, folder, 2)
    started = family(process.pid)
    process.kill()
    process.wait()
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert stage.read_manifest(str(folder / "root/pretrain")) is None
    finished(start(repo, folder, "train.workers=1"), folder)
    assert resumed_from(folder) >= 2 * EVERY
    assert [row[:2] for row in losses(folder)] == [row[:2] for row in whole]
    # One worker sums in another order than two, and hundreds of steps amplify rounding (test_checkpoint compares
    # the losses of few steps): here, those before the kill are the same, and the run learns as the whole one did.
    mine, before = losses(folder), resumed_from(folder)
    assert mine[:before] == whole[:before]
    assert mine[-1][2] == pytest.approx(whole[-1][2], abs=0.05)
