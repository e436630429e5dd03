"""Times of training steps that take turns, one by one, so that all see the same machine, whatever else it does.

Each contestant is a process of its own, as real runs are, with its own allocator and threads. Processes are forked, so
this comes before anything in the parent has computed in several threads.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping

# run(steps, ended) trains for so many steps and calls ended() after each.
Run = Callable[[int, Callable[[], None]], None]
_LOOK_SECONDS = 1.0
_PROCESSES = multiprocessing.get_context("fork")


class _Contestant:
    def __init__(self, run: Run, steps: int) -> None:
        self.run, self.steps = run, steps
        self.go, self.stands = _PROCESSES.Semaphore(0), _PROCESSES.Semaphore(0)
        self.process = _PROCESSES.Process(target=self.train, daemon=True)
        self.process.start()

    def ended(self) -> None:
        self.stands.release()
        self.go.acquire()

    def train(self) -> None:
        self.go.acquire()
        self.run(self.steps, self.ended)
        self.stands.release()

    def turn(self) -> float:
        """Let it go on to its step's end (or its own); the seconds taken."""
        begun = time.perf_counter()
        self.go.release()
        while not self.stands.acquire(timeout=_LOOK_SECONDS):
            if self.process.exitcode:
                raise RuntimeError("a contestant failed; see above")
        return time.perf_counter() - begun


def step_times(runs: Mapping[str, Run], steps: int, warm: int) -> dict[str, list[float]]:
    """Seconds of each contestant's steps but the first ``warm``, which compile."""
    contestants = {name: _Contestant(run, steps) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    try:
        for number in range(steps):
            for name, contestant in contestants.items():
                seconds = contestant.turn()
                if number >= warm:
                    times[name].append(seconds)
        for contestant in contestants.values():
            contestant.turn()
            contestant.process.join()
    finally:
        for contestant in contestants.values():
            contestant.process.kill()  # a trainer would save at SIGTERM first
    return times


def ratio(times: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median over the turns of one's seconds / the other's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
