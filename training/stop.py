"""Being asked to end: SIGTERM to any rank, or what the engine says. The ranks agree at the end of a step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Literal

LOOK_EVERY_SECONDS = 2.0
TOGETHER_SECONDS = 5.0  # a scheduler signals every process, and a launcher hands its own signal on: one wish
# What an engine says when asked: "save" where a machine will soon be taken away, "stop" where all is to end.
Wish = Literal["save", "stop"]


class Held:
    """Holds SIGTERM back, and calls ``ask`` at the first; one that comes seconds later is as it was before."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.ask = ask
        self.asked_at: float | None = None
        self.before: signal.Handlers | int | object = None

    def hold(self) -> None:
        """From now on; in the main thread."""
        self.before = signal.signal(signal.SIGTERM, self._come)

    def release(self) -> None:
        """As it was before."""
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)  # type: ignore[arg-type]  # what signal() gave
            self.before = None

    def _come(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
            self.ask()
        elif now - self.asked_at > TOGETHER_SECONDS:
            self.release()
            signal.raise_signal(number)


class Stop:
    """Holds SIGTERM back while a step of training runs."""

    def __init__(self) -> None:
        self.asked = False
        self.looked = time.monotonic()
        self.held = Held(self._ask)

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Ray's workers train in another
            self.held.hold()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held.release()

    def _ask(self) -> None:
        self.asked = True

    def look_due(self) -> bool:
        """Whether it is time to ask the engine again."""
        if time.monotonic() - self.looked < LOOK_EVERY_SECONDS:
            return False
        self.looked = time.monotonic()
        return True
