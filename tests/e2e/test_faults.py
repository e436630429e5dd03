"""Drivers killed, interrupted and started twice: nothing half-made is seen, nothing done is done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataeng import stage
from dataeng.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parent))
import captures

pytestmark = pytest.mark.e2e
FILES, PAGES, SLICES = 6, 20, 3
RECIPE = """
root = "{root}"
[spark]
master = "local[2]"
driver_memory = "1g"
partitions = 2
[extract]
input = ["{captures}/*.warc.gz"]
slice_bytes = {slice_bytes}
"""
# Runs a job as its command does, and dies by SIGKILL when its second slice is written but not yet published.
KILLED_BEFORE_PUBLISHING = """
import os, runpy, signal, sys
from dataeng.stage import Attempt
publish, turns = Attempt.publish, []
def killed(self, manifest):
    turns.append(self)
    if len(turns) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return publish(self, manifest)
Attempt.publish = killed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class World:
    """Captures, a recipe that cuts them into three slices, and what an undisturbed run made of them."""

    recipe: str
    folder: Path
    clean: Manifest

    def command(self, root: Path, *before: str) -> list[str]:
        return [sys.executable, *before, "spark_jobs/extract.py", self.recipe, f"root={root}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> World:
    folder = tmp_path_factory.mktemp("faults")
    paths = captures.write(folder / "captures", FILES, PAGES)
    size = sum(path.stat().st_size for path in paths) // SLICES
    recipe = folder / "r.toml"
    recipe.write_text(RECIPE.format(root=folder / "clean", captures=folder / "captures", slice_bytes=size - 1000))
    done = subprocess.run(
        [sys.executable, "spark_jobs/extract.py", str(recipe)], cwd=repo, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    clean = stage.need_manifest(str(folder / "clean"), "extract", "test")
    assert clean.details["slices"] == SLICES
    assert clean.counts["in"] == FILES * PAGES
    return World(str(recipe), folder, clean)


def start(command: list[str], repo: Path) -> subprocess.Popen[str]:
    """A job in a process group of its own, with Ctrl-C as a terminal has it."""
    return subprocess.Popen(
        command,
        cwd=repo,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )


def wait_for(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, (process.stdout or sys.stdin).read()[-3000:]
        time.sleep(0.02)


def wait_for_end_of_group(group: int) -> None:
    """Until no process of the group is left: a JVM that outlived its driver could still write."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        if all(_state(int(name)) in ("Z", "") for name in os.listdir("/proc") if name.isdigit() and _in(name, group)):
            return
        time.sleep(0.1)


def _in(name: str, group: int) -> bool:
    try:
        return os.getpgid(int(name)) == group
    except ProcessLookupError:
        return False


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def published_slices(root: Path) -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in (root / "extract" / "slices").glob("*.json")}


def rerun_completes(world: World, root: Path, repo: Path, before: dict[str, float]) -> None:
    """A rerun publishes what an undisturbed run does and touches no slice that was published."""
    assert not (root / "extract" / "manifest.json").exists(), "a stage cut short is not published"
    done = subprocess.run(world.command(root), cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("is done already") == len(before)
    after = published_slices(root)
    assert before.items() <= after.items()
    assert len(after) == SLICES
    made = stage.need_manifest(str(root), "extract", "test")
    assert made.counts == world.clean.counts
    assert made.dropped_by == world.clean.dropped_by
    for name, table in world.clean.tables.items():
        assert (made.tables[name].rows, made.tables[name].hash) == (table.rows, table.hash)
    assert stage.verify(str(root), "extract") == []


def test_a_driver_killed_while_it_writes(world: World, repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    process = start(world.command(root), repo)
    wait_for(lambda: published_slices(root) and list(root.glob("extract/data/*/*/_temporary/**/*.parquet")), process)
    process.kill()
    process.wait()
    wait_for_end_of_group(process.pid)
    before = published_slices(root)
    assert 0 < len(before) < SLICES
    rerun_completes(world, root, repo, before)


def test_a_driver_killed_between_writing_and_publishing(world: World, repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    process = start(world.command(root, "-c", KILLED_BEFORE_PUBLISHING), repo)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_for_end_of_group(process.pid)
    assert len(list(root.glob("extract/data/*/*/_SUCCESS"))) == 2, "two slices were written"
    before = published_slices(root)
    assert len(before) == 1, "and one of them published"
    rerun_completes(world, root, repo, before)


def test_an_interrupted_driver_ends_soon_and_can_be_rerun(world: World, repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    process = start(world.command(root), repo)
    wait_for(lambda: published_slices(root), process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to all that the terminal runs
    asked = time.monotonic()
    said, _ = process.communicate()
    wait_for_end_of_group(process.pid)
    assert process.returncode == 130, said[-3000:]
    assert time.monotonic() - asked < 10, "the promise to the user"
    assert said.splitlines()[-1].startswith("error: interrupted")
    assert len(published_slices(root)) < SLICES
    rerun_completes(world, root, repo, published_slices(root))


def test_of_two_drivers_started_at_once_one_publishes(world: World, repo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    processes = [start(world.command(root), repo) for _ in range(2)]
    ends = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(text[-2000:] for text in ends)
    made = stage.need_manifest(str(root), "extract", "test")
    assert {name: table.hash for name, table in made.tables.items()} == {
        name: table.hash for name, table in world.clean.tables.items()
    }
    attempts = {file.path.split("/")[2] for table in made.tables.values() for file in table.files}
    assert len(attempts) == SLICES, "each slice is of one attempt"
    assert len(list(root.glob("extract/data/*/*"))) >= SLICES
    assert len(published_slices(root)) == SLICES
    assert stage.verify(str(root), "extract") == []
