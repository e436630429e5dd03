"""Times of training steps that take turns, one by one, so that all see the same machine, whatever else it does."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping

# run(steps, ended) trains for so many steps and calls ended() after each.
Run = Callable[[int, Callable[[], None]], None]


class _Contestant(threading.Thread):
    def __init__(self, run: Run, steps: int) -> None:
        super().__init__(daemon=True)
        self.task, self.steps = run, steps
        self.go, self.stands = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None

    def ended(self) -> None:
        self.stands.release()
        self.go.acquire()

    def run(self) -> None:
        self.go.acquire()
        try:
            self.task(self.steps, self.ended)
        except BaseException as error:  # noqa: BLE001 — raised where its turn is waited for
            self.error = error
        self.stands.release()

    def turn(self) -> float:
        """Let it go on to its step's end (or its own); the seconds taken."""
        begun = time.perf_counter()
        self.go.release()
        self.stands.acquire()
        if self.error is not None:
            raise self.error
        return time.perf_counter() - begun


def step_times(runs: Mapping[str, Run], steps: int, warm: int) -> dict[str, list[float]]:
    """Seconds of each contestant's steps but the first ``warm``, which compile."""
    contestants = {name: _Contestant(run, steps) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for contestant in contestants.values():
        contestant.start()
    for number in range(steps):
        for name, contestant in contestants.items():
            seconds = contestant.turn()
            if number >= warm:
                times[name].append(seconds)
    for contestant in contestants.values():
        contestant.turn()
        contestant.join()
    return times


def ratio(times: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median over the turns of one's seconds / the other's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
