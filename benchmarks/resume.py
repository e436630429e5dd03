"""Pretraining killed at a random moment and run again, against a run that nobody disturbed.

    python benchmarks/resume.py RUN OUT [workers=1,2] [kills=2] [KEY=VALUE …]

RUN is a finished run (`make demo`'s runs/demo), whose token shards are taken. For each worker count a whole run
of 40 steps and one whose processes all get SIGKILL at a random step, ``kills`` times, then go on. Prints the step
at which each resumed beside the newest checkpoint that stood there, and compares every step's sample position,
loss and gradient norm, bit for bit; and, in fp32, the losses of the first and the last worker count: the batches
are the same, so the first ten steps agree within 1e-5 (later ones drift with rounding). Exits 1 on a difference.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dataeng import stage
from dataeng.cli import UserError, run

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS, EVERY = 40, 5
COMMON = (f"pretrain.max_steps={STEPS}", f"pretrain.checkpoint_every={EVERY}", "pretrain.validate_every=0")


def start(root: Path, workers: int, more: Sequence[str]) -> subprocess.Popen:
    """Pretraining in a process group of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    arguments = [str(REPOSITORY / "configs/demo.toml"), "pretrain", f"root={root}", *COMMON, *more]
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "training", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": threads},
        start_new_session=True,
    )


def rows(root: Path) -> list[dict]:
    path = root / "pretrain" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def newest_checkpoint(root: Path) -> int:
    found = (root / "pretrain").glob("checkpoints/*/step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def descendants(pid: int) -> list[int]:
    """A process and all that it started, whatever their sessions (torchrun gives each worker one of its own)."""
    children = [int(text) for path in Path(f"/proc/{pid}/task").glob("*/children") for text in path.read_text().split()]
    return [pid, *(found for child in children for found in descendants(child))]


def kill(process: subprocess.Popen, root: Path, step: int) -> int:
    """SIGKILL to all processes once the step is logged; the newest checkpoint at that moment."""
    while process.poll() is None and not any(row["step"] >= step for row in rows(root)):
        time.sleep(0.05)
    if process.poll() is not None:
        raise UserError(f"resume: the run ended with status {process.returncode} before step {step}")
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return newest_checkpoint(root)


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        raise UserError(f"resume: the run ended with status {process.returncode}")


def fresh(run_root: str, root: Path) -> Path:
    """A root that holds the run's tokenizer and token shards."""
    shutil.rmtree(root, ignore_errors=True)
    for name in ("tokenizer", "tokens"):
        stage.need_manifest(run_root, name, "resume")
        shutil.copytree(Path(run_root, name), root / name)
    return root


def killed(run_root: str, root: Path, workers: int, kills: int, more: Sequence[str]) -> bool:
    """Run with ``kills`` kills at random steps; whether each went on at the newest checkpoint."""
    fresh(run_root, root)
    bounds = [EVERY + 1 + (STEPS - EVERY - 4) * part // kills for part in range(kills + 1)]
    good = True
    for low, high in itertools.pairwise(bounds):
        step = random.randint(low + 1, high)
        newest = kill(start(root, workers, more), root, step)
        print(f"{workers} workers: killed at step {rows(root)[-1]['step']}, newest checkpoint: step {newest}")
    finish(start(root, workers, more))
    resumed = stage.need_manifest(str(root), "pretrain", "resume").details["resumed_from"]
    good = good and resumed == newest
    print(f"{'ok  ' if good else 'MISS'} {workers} workers: resumed at step {resumed}")
    return good


def compared(one: list[dict], other: list[dict], what: str) -> bool:
    keys = ("step", "position", "loss", "norm")
    different = [a["step"] for a, b in zip(one, other, strict=True) if any(a[key] != b[key] for key in keys)]
    print(f"{'MISS' if different else 'ok  '} {what}: {len(one)} steps, {len(different)} differ {different[:5]}")
    return not different


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        raise UserError("usage: python benchmarks/resume.py RUN OUT [workers=1,2] [kills=2] [KEY=VALUE …]")
    run_root, out = arguments[0], Path(arguments[1])
    settings = {"workers": "1,2", "kills": "2"}
    settings |= {key: value for key, _, value in (text.partition("=") for text in arguments[2:]) if key in settings}
    more = [text for text in arguments[2:] if text.partition("=")[0] not in settings]
    counts, whole, good = [int(count) for count in settings["workers"].split(",")], {}, True
    for workers in counts:
        root = fresh(run_root, out / f"whole-{workers}")
        finish(start(root, workers, more))
        whole[workers] = rows(root)
        good &= killed(run_root, out / f"killed-{workers}", workers, int(settings["kills"]), more)
        good &= compared(whole[workers], rows(out / f"killed-{workers}"), f"{workers} workers, killed or not")
    first, last = whole[counts[0]], whole[counts[-1]]
    same = all(a["position"] == b["position"] and a["weight"] == b["weight"] for a, b in zip(first, last, strict=True))
    apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(first[:10], last[:10], strict=True))
    good &= same and (apart < 1e-5 or "pretrain.precision=fp32" not in more)
    print(f"{counts[0]} and {counts[-1]} workers: same weights and positions: {same}; ten losses within {apart:.1e}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    run(main)
