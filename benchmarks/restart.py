"""From the death of a rank to the next step: Ray Train with two workers on this machine.

    python benchmarks/restart.py RUN OUT [rounds=3] [KEY=VALUE …]

RUN is a finished run (`make demo`'s runs/demo), whose token shards are taken; further arguments are overrides of
configs/demo.toml. Once a checkpoint stands, one worker gets SIGKILL; prints the seconds until the first step that
comes after those logged before, and how many steps were done again. Exits 1 where the median is over 30 s.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dataeng import stage
from dataeng.cli import UserError, run

REPOSITORY = Path(__file__).resolve().parent.parent
FLOOR_SECONDS, EVERY = 30.0, 5
COMMON = ('train.steps=["pretrain"]', "train.workers=2", "train.threads=1", "train.max_failures=-1")


def last_row(root: Path) -> tuple[int, float, int]:
    """The last step that was logged, when, and in which file: a run that goes on puts a new one there."""
    path = root / "pretrain" / "metrics.jsonl"
    if not path.exists():
        return 0, 0.0, 0
    lines = [line for line in path.read_text().split("\n")[:-1] if line]
    found = path.stat()
    return (json.loads(lines[-1])["step"] if lines else 0), found.st_mtime, found.st_ino


def workers_of(pid: int) -> list[int]:
    """The Ray Train workers among a process's descendants."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            name = Path(f"/proc/{child}/cmdline").read_bytes()
            found += [child] if name.startswith(b"ray::RayTrainWorker") else workers_of(child)
    return found


def wait(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    while not condition():
        if process.poll() is not None:
            raise UserError(f"restart: the run ended with status {process.returncode}; see its log")
        time.sleep(0.02)


def restarted(process: subprocess.Popen, root: Path) -> float:
    """Kill a worker right after a checkpoint; the seconds until training is past the step where it stood."""
    begin = last_row(root)[0]
    wait(process, lambda: last_row(root)[0] >= begin + 2 * EVERY)
    stood, _, file = last_row(root)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    killed = time.time()
    wait(process, lambda: last_row(root)[2] != file)
    resumed = last_row(root)[0]
    wait(process, lambda: last_row(root)[0] > resumed)
    first = last_row(root)[1] - killed
    print(
        f"killed at step {stood}; went on after step {resumed}; the next step ended {first:.1f} s after the kill",
        flush=True,
    )
    return first


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        raise UserError("usage: python benchmarks/restart.py RUN OUT [rounds=3] [KEY=VALUE …]")
    rounds = next((int(text.partition("=")[2]) for text in arguments[2:] if text.startswith("rounds=")), 3)
    more = [text for text in arguments[2:] if not text.startswith("rounds=")]
    root = Path(arguments[1], "root").resolve()
    shutil.rmtree(root, ignore_errors=True)
    for name in ("tokenizer", "tokens"):
        stage.need_manifest(arguments[0], name, "restart")
        shutil.copytree(Path(arguments[0], name), root / name)
    settings = [f"root={root}", *COMMON, "pretrain.max_steps=100000", f"pretrain.checkpoint_every={EVERY}", *more]
    with open(Path(arguments[1], "log"), "w") as log:
        command = [sys.executable, "ray_jobs/train.py", "configs/demo.toml", *settings]
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        try:
            wait(process, lambda: last_row(root)[0] >= 1)
            seconds = [restarted(process, root) for _ in range(rounds)]
        finally:
            process.terminate()  # it saves, and ends its cluster
            process.wait()
    median = statistics.median(seconds)
    print(f"{'ok  ' if median <= FLOOR_SECONDS else 'MISS'} from kill to the next step: median {median:.1f} s")
    sys.exit(0 if median <= FLOOR_SECONDS else 1)


if __name__ == "__main__":
    run(main)
