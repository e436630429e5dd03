"""Functions that misbehave, for the worker behind limits."""

from __future__ import annotations

import os
import time


def double(value: int) -> int:
    return 2 * value


def _make_noise() -> None:
    print("noise on standard output")
    os.write(1, b"more noise")


def _work() -> None:
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass


_HARMLESS = {"print": _make_noise, "nap": lambda: time.sleep(1.5), "work half a second": _work}


def act(what: str, path: str = "") -> str:
    """Do as told: hang in Python or C, wait, eat memory, abort, raise; or once only (``path`` marks it)."""
    if path:
        if os.path.exists(path):
            return "second try"
        with open(path, "w") as file:
            file.write("x")
    if what == "loop":
        while True:
            pass
    if what == "loop in C":
        return str(sum(range(10**13)))
    if what == "wait":
        time.sleep(10**6)
    if what == "memory":
        return str(len(b"x" * (8 << 30)))
    if what == "abort":
        os.abort()
    if what == "exit":
        os._exit(0)
    if what == "raise":
        raise ValueError("at 0x7f00")
    if what in _HARMLESS:
        _HARMLESS[what]()
    return what


def work_but_abort(task):
    """A page's work; the process ends where the page says so, as a fault in a native parser would end it."""
    from dataeng.extract.page import work

    if b"abort here" in task.body:
        os.abort()
    return work(task)
