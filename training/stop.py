"""Being asked to end: SIGTERM to any rank, or what the engine says. The ranks agree at the end of a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Literal

LOOK_EVERY_SECONDS = 2.0
# What an engine says when asked: "save" where a machine will soon be taken away, "stop" where all is to end.
Wish = Literal["save", "stop"]


class Stop:
    """Holds SIGTERM back while a step of training runs; a second one is as it was before."""

    def __init__(self) -> None:
        self.asked = False
        self.looked = time.monotonic()
        self.before: signal.Handlers | int | object = None

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # Ray's workers train in another
            self.before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)  # type: ignore[arg-type]  # what signal() gave
            self.before = None

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def look_due(self) -> bool:
        """Whether it is time to ask the engine again."""
        if time.monotonic() - self.looked < LOOK_EVERY_SECONDS:
            return False
        self.looked = time.monotonic()
        return True
