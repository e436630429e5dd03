"""Where work of hours is kept until it is published, so that a killed run goes on instead of over."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataeng import storage
from dataeng.cli import Failure


def folder_for(stage_folder: str, key: str, scratch: str | None) -> Path:
    """The local folder of unfinished work: ``STAGE/partial/KEY``, or below ``scratch``.

    A stage on object storage keeps it in the machine's temporary folder: going on needs the same machine.
    """
    if scratch:
        return Path(scratch, key)
    if storage.is_s3(stage_folder):
        place = hashlib.sha256(stage_folder.encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"millrace-{os.getuid()}-{place}", key)
    return Path(stage_folder, "partial", key)


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """The folder, made and locked; raises Failure while another run works in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Failure(f"{folder}: another run is at work there: wait for it, or use another root") from None
        yield folder


def place(local: Path, target: str) -> None:
    """Put a finished local file at ``target``; on one disk it is linked, not copied."""
    if not storage.is_s3(target):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(local, target)
        except OSError:
            storage.upload(local, target)
    else:
        storage.upload(local, target)


def clear(folder: Path) -> None:
    """Remove unfinished work that has been published, and the folders above it that are empty now."""
    shutil.rmtree(folder, ignore_errors=True)
    for parent in list(folder.parents)[:1]:
        if parent.name == "partial" and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
