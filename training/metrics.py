"""``ROOT/NAME/metrics.jsonl`` and TensorBoard's files: one row a step, without doubles after a resume.

The rows that a resumed run goes on from stand beside its checkpoints: another run in the same folder, with other
settings, may have written ``metrics.jsonl`` since.
"""

from __future__ import annotations

import json
import os
from types import TracebackType
from typing import IO, Any

from dataeng import storage
from training.board import Board, is_part
from training.context import Context
from training.trackers import Trackers


class Metrics:
    """Writes rows from rank 0. Rows after the step that a run resumed at are taken away first."""

    def __init__(self, context: Context, resumed: int, max_steps: int, before: int) -> None:
        """``resumed`` at that step from a run of ``before`` steps; this one has ``max_steps``."""
        self.context, self.path = context, storage.join(context.folder, "metrics.jsonl")
        self.own, begun = (storage.join(context.checkpoints, f"metrics-{n}.jsonl") for n in (max_steps, before))
        self.waiting = 0
        self.lines: list[str] = []  # on S3: all; on a disk they are in the files
        self.files: dict[str, IO[str]] = {}
        self.trackers = Trackers(context)
        self.board: Board | None = None
        if context.first:
            lines = [line for line in _lines(begun) if resumed and json.loads(line)["step"] <= resumed]
            self._begin(lines)

    def _begin(self, lines: list[str]) -> None:
        """Have these rows, and no others, in all places."""
        self._put(lines)
        if storage.is_s3(self.path):
            self.lines = lines
        else:
            self.files = {path: open(path, "a+", encoding="utf-8") for path in (self.own, self.path)}  # noqa: SIM115
        self.board = Board(self.context, lines)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        for file in self.files.values():
            file.close()
        if self.board:
            self.board.close()
        self.trackers.close()

    def write(self, row: dict[str, Any]) -> None:
        """Add one step's row."""
        if self.board is None:
            return
        self.trackers.write(row)
        self.board.write(row)
        line = json.dumps(row) + "\n"
        for file in self.files.values():
            file.write(line)
            file.flush()
        if not self.files:
            self.lines.append(line)
            self.waiting += 1
            if is_part(self.waiting, len(self.lines)):
                self.flush()

    def flush(self) -> None:
        """Have all rows where they outlast this process and its machine."""
        if self.board is None:
            return
        if self.files:
            self._sync()
            return
        self._put(self.lines)
        self.waiting = 0

    def _put(self, lines: list[str]) -> None:
        text = "".join(lines).encode()
        for path in (self.own, self.path):
            storage.write_bytes(path, text)

    def _sync(self) -> None:
        """Files are on the disk, and still stand where they were begun: another start of this run may have put its
        own there, and have ended since."""
        for file in self.files.values():
            os.fsync(file.fileno())
        if self.board and not all(_stands(path, file) for path, file in self.files.items()):
            own = self.files[self.own]
            own.seek(0)
            lines = own.readlines()
            for file in self.files.values():
                file.close()
            self.board.close()
            self._begin(lines)


def _stands(path: str, file: IO[str]) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _lines(path: str) -> list[str]:
    """The whole rows of an earlier run; a last line that a kill cut short is left out."""
    try:
        text = storage.read_bytes(path).decode()
    except FileNotFoundError:
        return []
    return [f"{line}\n" for line in text.split("\n")[:-1]]
