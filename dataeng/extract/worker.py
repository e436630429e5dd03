"""The killable worker's own side: reads tasks from standard input, writes answers to standard output.

Started by ``limits``. Its address space is bounded; each task has its own bound of CPU time, which the
kernel enforces (SIGXCPU), so a loop inside C code ends as well.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import resource
import struct
import sys
import threading
import time
from typing import BinaryIO


def read_message(stream: BinaryIO) -> bytes | None:
    """The next length-prefixed message, or None at the stream's end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    size = struct.unpack("<Q", head)[0]
    body = stream.read(size)
    return body if len(body) == size else None


def write_message(stream: BinaryIO, body: bytes) -> None:
    """Write a message with its length before it."""
    stream.write(struct.pack("<Q", len(body)) + body)
    stream.flush()


def _bound(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, hard))


def _leave_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(0)


def main() -> None:
    """Serve until standard input ends. Arguments: MODULE:FUNCTION, memory in bytes, CPU seconds a task."""
    target, memory, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    _bound(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(ValueError, OSError):  # systems without this limit still have the clock
        _bound(resource.RLIMIT_AS, memory)
    write_message(answers, b"ready")
    while (request := read_message(sys.stdin.buffer)) is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds)
        try:
            answer = ("done", function(*pickle.loads(request)))  # noqa: S301 — from our own parent
        except MemoryError:
            answer = ("memory", None)
        except Exception as error:  # noqa: BLE001 — told to the parent, which drops the page and says why
            answer = ("error", type(error).__name__)
        write_message(answers, pickle.dumps(answer))
        if answer[0] == "memory":
            return


if __name__ == "__main__":
    main()
