"""Tells training's workers what the engine knows: a machine will be taken away, or the driver was asked to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from training.stop import Held, Wish

if TYPE_CHECKING:
    from training.context import Context
    from training.failures import Said

_ANSWER_SECONDS = 10.0


class _Wishes:
    """An actor that remembers what the driver wishes, and why a worker cannot go on."""

    def __init__(self) -> None:
        self.wished = False
        self.said: Said | None = None

    def fail(self, said: Said) -> None:
        if self.said is None or not self.said.final:
            self.said = said

    def failure(self) -> Said | None:
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
    """Round a worker's work: the driver is told of errors that are one line to the user. False where one was told
    already that starting again cannot mend: there is nothing to do."""
    import ray

    from training.failures import TOLD, said

    try:
        before = ray.get(wishes.failure.remote())
        yield before is None or not before.final
    except TOLD as error:
        ray.get(wishes.fail.remote(said(error)))
        raise


def raise_told(wishes: Any, failed: bool) -> None:
    """In the driver, raise what a worker told, if training ``failed`` or nothing could mend it."""
    import ray

    try:
        said = ray.get(wishes.failure.remote())
    except ray.exceptions.RayActorError:
        return
    if said and (failed or said.final):
        raise said.error() from None


@contextmanager
def relay() -> Iterator[Relay]:
    """While the block runs, SIGTERM asks the workers to save and end; one that comes later again is as before."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = Relay(ray.remote(_Wishes).options(num_cpus=0, scheduling_strategy=here).remote())
    threading.Thread(target=made.tell, daemon=True).start()

    held = Held(made.asked.set)
    held.hold()
    try:
        yield made
    finally:
        held.release()


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
