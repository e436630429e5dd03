"""Tells training's workers what the engine knows: a machine will be taken away, or the driver was asked to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataeng.cli import Conflict, Failure, UserError
from training.stop import Wish

if TYPE_CHECKING:
    from training.context import Context

_ANSWER_SECONDS = 10.0


_FINAL = {kind.__name__: kind for kind in (UserError, Failure, Conflict)}  # what starting again cannot mend


class _Wishes:
    """An actor that remembers what the driver wishes, and why a worker cannot go on."""

    def __init__(self) -> None:
        self.wished = False
        self.said: tuple[str, str] | None = None

    def fail(self, kind: str, text: str) -> None:
        self.said = self.said or (kind, text)

    def failure(self) -> tuple[str, str] | None:
        return self.said

    def wish(self) -> None:
        self.wished = True

    def read(self) -> bool:
        return self.wished


@dataclass
class Relay:
    """Passes SIGTERM on: a handler must not call Ray, so a thread does."""

    wishes: Any
    asked: threading.Event = field(default_factory=threading.Event)

    def tell(self) -> None:
        """Wait for the signal, then tell the actor."""
        self.asked.wait()
        self.wishes.wish.remote()


@contextmanager
def told(wishes: Any) -> Iterator[bool]:
    """Round a worker's work: the driver is told of errors that starting again cannot mend; false: one was already."""
    import ray

    from training.trainer import TrainingFailed

    try:
        yield ray.get(wishes.failure.remote()) is None
    except (UserError, TrainingFailed, Conflict) as error:
        kind = next(name for name, kind in _FINAL.items() if isinstance(error, kind))
        ray.get(wishes.fail.remote(kind, str(error)))
        raise


def raise_told(wishes: Any) -> None:
    """In the driver, raise what a worker told."""
    import ray

    if said := ray.get(wishes.failure.remote()):
        raise _FINAL[said[0]](said[1]) from None


@contextmanager
def relay() -> Iterator[Relay]:
    """While the block runs, the first SIGTERM asks the workers to save and end; a second is as it was before."""
    import ray

    made = Relay(ray.remote(_Wishes).options(num_cpus=0).remote())
    threading.Thread(target=made.tell, daemon=True).start()

    def ask(number: int, frame: Any) -> None:
        made.asked.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield made
    finally:
        signal.signal(signal.SIGTERM, before)


def notice(context: Context, wishes: Any) -> Callable[[], Wish | None]:
    """What ``Context.notice`` is for Ray Train's workers: all of them call it equally often."""
    import ray
    import ray.train

    def stop_wished() -> bool:
        try:
            return bool(ray.get(wishes.read.remote(), timeout=_ANSWER_SECONDS))
        except ray.exceptions.GetTimeoutError:  # the driver's machine is busy: there is a next time
            return False

    def look() -> Wish | None:
        if context.broadcast(context.first and stop_wished()):
            return "stop"
        return "save" if ray.train.get_preemption_info() is not None else None

    return look
