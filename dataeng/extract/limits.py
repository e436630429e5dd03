"""Hard limits of time and memory around a function, in a worker process that can be killed.

One task at a time crosses the pipe, so whatever happens to the worker happened to that task. Which
limit was hit is a backstop's matter and may differ between runs; ``Failed`` is therefore counted apart.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, cast

from dataeng.extract.worker import read_message, write_message

Reason = Literal["timeout", "memory", "crash"]
_START_SECONDS = 300  # to import the worker's modules, however busy the machine


class Failed(Exception):
    """The task hit a limit twice, the second time alone in a fresh worker. ``reason`` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Raised(Exception):
    """The function itself raised; the message is the exception's type. Deterministic."""


@dataclass
class Limited:
    """``target`` ("module:function") behind limits. Its process lives across calls; not for several threads.

    ``seconds`` are CPU time of one call; ``patience`` × as many on the clock end a call that only waits.
    ``memory_bytes`` bounds the whole address space of the worker.
    """

    target: str
    seconds: int = 60
    memory_bytes: int = 2 << 30
    patience: int = 5
    calls_a_process: int = 5000
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _calls: int = field(default=0, init=False)

    def call(self, *arguments: Any) -> Any:
        """The function's result; raises Failed after a second try, or Raised."""
        request = pickle.dumps(arguments)
        if self._calls >= self.calls_a_process:
            self.stop()
        result = self._try(request)
        if isinstance(result, str):
            self.stop()
            result = self._try(request)
        if isinstance(result, str):
            self.stop()
            raise Failed(cast(Reason, result))
        status, value = result
        if status == "error":
            raise Raised(value)
        return value

    def _try(self, request: bytes) -> tuple[str, Any] | str:
        """The worker's answer, or the reason why there is none."""
        process = self._process = self._process or self._start()
        self._calls += 1
        answer = None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            write_message(cast(BinaryIO, process.stdin), request)
            answer = self._wait(process, self.seconds * self.patience)
        if answer is None:
            return self._why(process)
        status, value = pickle.loads(answer)  # noqa: S301 — from our own worker
        return "memory" if status == "memory" else (status, value)

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """The next message; None where the worker ended. One that only waits is killed."""
        stream = cast(BinaryIO, process.stdout)
        ready, _, _ = select.select([stream], [], [], seconds)
        if not ready:
            process.send_signal(signal.SIGXCPU)  # out of time, whichever clock says so
            return None
        return read_message(stream)

    def _why(self, process: subprocess.Popen[bytes]) -> Reason:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        return "timeout" if process.poll() in (None, -signal.SIGXCPU) else "crash"

    def _start(self) -> subprocess.Popen[bytes]:
        self._calls = 0
        command = [sys.executable, "-P", "-m", "dataeng.extract.worker"]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [*command, self.target, str(self.memory_bytes), str(self.seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the parent's to handle: this ends with its input
        )
        started = time.monotonic()
        if self._wait(process, _START_SECONDS) != b"ready":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            status, seconds = process.wait(), time.monotonic() - started
            raise RuntimeError(f"the worker for {self.target} ended with status {status} after {seconds:.0f} s")
        return process

    def stop(self) -> None:
        """End the worker, at once."""
        process, self._process, self._calls = self._process, None, 0
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    cast(BinaryIO, stream).close()


_kept: dict[tuple[int, str, int, int], Limited] = {}


def kept(target: str, seconds: int, memory_bytes: int) -> Limited:
    """This process's worker for a target: it lives across tasks, since importing costs a second."""
    key = (os.getpid(), target, seconds, memory_bytes)
    return _kept.setdefault(key, Limited(target, seconds, memory_bytes))
