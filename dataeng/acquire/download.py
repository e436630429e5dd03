"""One remote file to one local file: by ranges, gone on with after a kill, its length and checksum verified."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dataeng.acquire.remote import Answer, Busy, Changed, Cut, Pauses, Source
from dataeng.cli import Failure

log = logging.getLogger("millrace")
_PROGRESS = 64 << 10  # bytes that make a broken try count as a step forward
_MOST_CHANGES = 5
_MD5 = re.compile(r'"([0-9a-f]{32})"')  # an object uploaded in one part has it as its ETag (Amazon S3's manual)


@dataclass
class _State:
    """What is known of the file of which a part stands on disk; kept beside it."""

    path: Path
    tag: str = ""
    size: int | None = None

    def load(self) -> bool:
        """Whether a part was begun, and of what."""
        try:
            values = json.loads(self.path.read_text())
            self.tag, self.size = str(values["tag"]), values["size"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def note(self, tag: str, size: int | None) -> None:
        """Remember the file's tag and size before the first byte of it is written."""
        if (tag, size) == (self.tag, self.size) and self.path.exists():
            return
        self.tag, self.size = tag, size
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"tag": tag, "size": size}))
        os.replace(temporary, self.path)

    def forget(self) -> None:
        """The part belongs to no file that is there now."""
        self.tag, self.size = "", None
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Bounds:
    """How much is asked for at once, and how long a file may be, in bytes."""

    range_bytes: int = 64 << 20
    file_bytes: int = 16 << 30


def _take(answer: Answer, file: BinaryIO, state: _State, bounds: Bounds) -> bool:
    """Write an answer behind what is there; whether the file is whole now."""
    position = file.seek(0, os.SEEK_END)
    if state.tag and (answer.tag, answer.size) != (state.tag, state.size):
        raise Changed("another tag or size")
    if (answer.size or 0) > bounds.file_bytes:
        raise Failure(f"is {answer.size:,} bytes long, more than file_bytes = {bounds.file_bytes:,}")
    state.note(answer.tag, answer.size)
    if answer.start != position:  # the server ignored the range
        position = 0
        file.truncate(0)
        file.seek(0)
    for chunk in answer.chunks:
        file.write(chunk)
        position += len(chunk)
        if position > bounds.file_bytes:
            raise Failure(f"does not end within file_bytes = {bounds.file_bytes:,}")
    if answer.size is not None and position > answer.size:
        raise Changed(f"{position} bytes came of {answer.size}")
    return answer.size is None or position == answer.size


def _restart(file: BinaryIO, state: _State) -> None:
    file.truncate(0)
    file.seek(0)
    state.forget()


def _verified(file: Any, tag: str, before: str | None) -> tuple[bool, str | None]:
    """Whether the bytes have the MD5 that the tag names, and theirs. The same bytes twice: the tag is no MD5."""
    found = _MD5.fullmatch(tag)
    if not found:
        return True, None
    file.seek(0)
    own = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return own in (found[1], before), own


def download(source: Source, path: str, target: Path, pauses: Pauses, bounds: Bounds | None = None) -> str:
    """Bring ``path`` to ``target``, going on where an earlier run was killed; gives the file's tag.

    Raises UserError where the file is not there, Failure where tries run out or bytes do not fit its checksum.
    """
    bounds = bounds or Bounds()
    state = _State(target.with_name(target.name + ".json"))
    begun = state.load()
    failures, changes, checksum = 0, 0, None
    with open(target, "r+b" if begun and target.exists() else "w+b") as file:
        while True:
            before = file.seek(0, os.SEEK_END)
            try:
                pauses.wait()
                whole = _take(source.open(path, before, bounds.range_bytes, state.tag), file, state, bounds)
                failures = 0
            except Changed as change:
                changes += 1
                log.info("%s: changed meanwhile (%s): from its beginning again", path, change)
                if changes > _MOST_CHANGES:
                    raise Failure(f"{path}: changed {changes} times while it was read") from None
                _restart(file, state)
                continue
            except (Busy, Cut) as error:
                failures = 1 if file.tell() - before >= _PROGRESS else failures + 1
                if failures > pauses.manners.retries:
                    raise Failure(f"{path}: given up after {failures} tries: {error}") from None
                pauses.after(error, failures)
                continue
            except Failure as failure:
                raise Failure(f"{path}: {failure}") from None
            if not whole:
                continue
            good, own = _verified(file, state.tag, checksum)
            if good:
                break
            if checksum is not None:
                raise Failure(f"{path}: its bytes do not have the MD5 of its ETag {state.tag}, and differ each time")
            log.warning("%s: its bytes have the MD5 %s, its ETag says %s: downloaded again", path, own, state.tag)
            checksum = own
            _restart(file, state)
        file.flush()
        os.fsync(file.fileno())
    return state.tag
