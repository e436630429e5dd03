"""Weak scaling of FSDP from one single-thread worker to two: as many rows each, over gloo on the loopback device.

    python benchmarks/weak_scaling.py [rounds=5] [steps=10] [compile] [KEY=VALUE …]

The 12M decoder, bf16 with fp32 sums, 16 rows of 256 random tokens a worker, each worker pinned to a core of its own.
A round measures one worker alone, two that know nothing of each other (what the machine itself allows), and two that
share one model by FSDP; KEY=VALUE are further settings of the trainer (optimizer="muon"). Printed are tokens a
second, the median steps of each, and the medians over the rounds of two / one. Floor: 1.7 x.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from own_trainer import random_batches, settings_of, step_seconds
from peer_trainer import LENGTH, ROWS, SHAPE, VOCABULARY
from torch import distributed as dist
from torch import multiprocessing

from training.settings import TrainerConfig

WORKERS, FLOOR, WARM = 2, 1.7, 3
KINDS = ("one", "apart", "fsdp")


def median_step(together: bool, rank: int, steps: int, more: dict[str, Any]) -> float:
    """The median step of this process, by itself or ``together`` with all others, through the whole trainer."""
    world = WORKERS if together else 1
    settings = TrainerConfig(
        **{"max_steps": steps + WARM, "batch": ROWS * world, "micro_batch": ROWS, "checkpoint_every": 10**6} | more
    )
    batches = random_batches(ROWS, LENGTH, VOCABULARY, seed=rank)
    taken = step_seconds(SHAPE, VOCABULARY, settings, batches, processes=world)
    return statistics.median(taken[WARM:-1])  # the last step's end follows a checkpoint


def worker(rank: int, port: int, rounds: int, steps: int, more: dict[str, Any], told: Any) -> None:
    """One process: its part of every round; ``told`` gets (round, kind, rank, seconds of a step)."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORKERS)
    for turn in range(rounds):
        for kind in KINDS:
            dist.barrier()
            if kind != "one" or rank == 0:
                told.put((turn, kind, rank, median_step(kind == "fsdp", rank, steps, more)))
    dist.barrier()
    dist.destroy_process_group()


def ratios(found: list[tuple[int, str, int, float]], rounds: int) -> dict[str, list[float]]:
    """Tokens a second by kind and round, of all workers of a kind together."""
    speeds = {kind: [0.0] * rounds for kind in KINDS}
    for turn, kind, _, seconds in found:
        speeds[kind][turn] += ROWS * LENGTH / seconds
    return speeds


def main(words: list[str]) -> int:
    """Measure and print; 1 where the floor is missed."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    rounds, steps = int(named.pop("rounds", "5")), int(named.pop("steps", "10"))
    more = settings_of(named) | {"compile": "compile" in words}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    told = multiprocessing.get_context("spawn").SimpleQueue()
    started = multiprocessing.start_processes(
        worker, (port, rounds, steps, more, told), WORKERS, join=False, start_method="spawn"
    )
    found = [told.get() for _ in range(rounds * (1 + 2 * WORKERS))]
    while not started.join():
        pass
    speeds = ratios(found, rounds)
    for kind in KINDS:
        each = ", ".join(f"{speed / one:.3f}" for speed, one in zip(speeds[kind], speeds["one"], strict=True))
        print(f"  {kind:<6}{statistics.median(speeds[kind]):>9,.0f} tokens/s   / one: {each}")
    medians = {
        kind: statistics.median(speed / one for speed, one in zip(speeds[kind], speeds["one"], strict=True))
        for kind in KINDS
    }
    print(f"{medians['fsdp']:.3f} x one worker (floor {FLOOR}); two apart {medians['apart']:.3f} x")
    return 1 if medians["fsdp"] < FLOOR else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
