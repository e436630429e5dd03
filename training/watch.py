"""A hang ends with a dump that says where each process stood, and then with the run."""

from __future__ import annotations

import faulthandler
import logging
import os
import tempfile
import threading
import time
from types import TracebackType

from torch import distributed as dist

from dataeng import storage
from dataeng.cli import Failure, UserError
from training.context import Context

log = logging.getLogger("millrace")
_COLLECTIVE = ("forward", "backward", "reduce", "optimizer")  # phases in which processes wait for each other
_FIRST_STEP = 3.0  # compiling takes its time
_GRACE_SECONDS = 3.0  # for the others to write their dumps


class Watch:
    """Is told what its process does, and watches from a thread; does nothing where there is one process.

    One that stands in an update for longer than ``seconds``, or fails alone, has all dump their stacks to
    ``ROOT/NAME/hang-PROCESS.txt`` and to standard error, and end with status 1.
    """

    def __init__(self, context: Context, seconds: float) -> None:
        self.context, self.seconds, self.key = context, seconds, f"millrace/hang/{context.name}"
        self.phase, self.step, self.first = "start", 0, True
        self.since = time.monotonic()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        if self.context.processes > 1:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()
            if isinstance(error, Exception) and not isinstance(error, Failure | UserError):  # those come to all alike
                self._tell(f"process {self.context.process} failed ({type(error).__name__})")

    def at(self, phase: str, step: int) -> None:
        """From now on this process does ``phase`` of ``step``."""
        self.first = self.first and (self.phase != "optimizer" or step == self.step)
        self.phase, self.step, self.since = phase, step, time.monotonic()

    def _watch(self) -> None:
        while not self.over.wait(min(1.0, self.seconds / 4)):
            stood = time.monotonic() - self.since
            limit = self.seconds * (_FIRST_STEP if self.first else 1.0)
            if self.phase in _COLLECTIVE and stood > limit:
                why = f"process {self.context.process} stood in `{self.phase}` of step {self.step} for {stood:.0f} s"
                self._tell(why)
                self._end(why)
            elif (why := self._told()) and not self.over.wait(_GRACE_SECONDS):
                self._end(why)

    def _tell(self, why: str) -> None:
        """Have the other processes dump as well."""
        try:
            dist.distributed_c10d._get_default_store().set(self.key, why)
        except (RuntimeError, ValueError) as error:
            log.info("the other processes cannot be told of a hang: %s", error)

    def _told(self) -> str:
        """What another process told, or nothing."""
        try:
            store = dist.distributed_c10d._get_default_store()
            return store.get(self.key).decode() if store.check([self.key]) else ""
        except (RuntimeError, ValueError):  # the process that keeps the store has gone: collectives say so themselves
            return ""

    def _end(self, why: str) -> None:
        process, phase, step = self.context.process, self.phase, self.step
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = file.read().decode(errors="replace")
        line = (
            f"{self.context.name}: {why}: process {process} of {self.context.processes} was in `{phase}` of step {step}"
        )
        log.error("%s\n%s", line, stacks)
        try:
            storage.write_bytes(storage.join(self.context.folder, f"hang-{process}.txt"), f"{line}\n{stacks}".encode())
        except Exception as error:  # noqa: BLE001 — said; the dump stands in the log, and the process must end
            log.error("its dump could not be kept: %s", error)
        time.sleep(_GRACE_SECONDS)
        os._exit(1)
