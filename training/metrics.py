"""``ROOT/NAME/metrics.jsonl`` and TensorBoard's files: one row a step, without doubles after a resume.

The rows that a resumed run goes on from stand beside its checkpoints: another run in the same folder, with other
settings, may have written ``metrics.jsonl`` since.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dataeng import storage
from training.context import Context
from training.trackers import Trackers

FLUSH_EVERY = 200  # rows, at least, and a twentieth of those there are: object storage cannot append
_SECONDS = 10  # that TensorBoard's rows wait at most where they are appended


class Metrics:
    """Writes rows from rank 0. Rows after the step that a run resumed at are taken away first."""

    def __init__(self, context: Context, resumed: int, max_steps: int, before: int) -> None:
        """``resumed`` at that step from a run of ``before`` steps; this one has ``max_steps``."""
        self.context, self.path = context, storage.join(context.folder, "metrics.jsonl")
        self.own, begun = (storage.join(context.checkpoints, f"metrics-{n}.jsonl") for n in (max_steps, before))
        self.waiting = 0
        self.lines: list[str] = []
        self.files: list[IO[str]] = []  # opened once: a run that begins here later has files of its own
        self.trackers = Trackers(context)
        self.board: Board | None = None
        if context.first:
            self.lines = [line for line in _lines(begun) if resumed and json.loads(line)["step"] <= resumed]
            self.flush()
            self.board = Board(storage.join(context.folder, "tensorboard"))
            for line in self.lines:
                self.board.write(json.loads(line))
            if not storage.is_s3(self.path):
                self.files = [open(path, "a", encoding="utf-8") for path in (self.own, self.path)]  # noqa: SIM115
                self.lines = []

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        for file in self.files:
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
        for file in self.files:
            file.write(line)
            file.flush()
        if not self.files:
            self.lines.append(line)
            self.waiting += 1
            if self.waiting >= max(FLUSH_EVERY, len(self.lines) // 20):
                self.flush()

    def flush(self) -> None:
        """Have all rows where they outlast this process and its machine."""
        for file in self.files:
            file.flush()
            os.fsync(file.fileno())
        if self.context.first and not self.files:
            text = "".join(self.lines).encode()
            for path in (self.own, self.path):
                storage.write_bytes(path, text)
            self.waiting = 0


def _lines(path: str) -> list[str]:
    """The whole rows of an earlier run; a last line that a kill cut short is left out."""
    try:
        text = storage.read_bytes(path).decode()
    except FileNotFoundError:
        return []
    return [f"{line}\n" for line in text.split("\n")[:-1]]


class Board:
    """TensorBoard's event files, in place of a run's earlier ones: one that grows, or on S3 one for some rows each."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        storage.delete([entry.path for entry in storage.list_files(folder)])
        self.temporary = tempfile.TemporaryDirectory() if storage.is_s3(folder) else None
        self.rows = self.waiting = 0
        self._open()

    def _open(self) -> None:
        from torch.utils.tensorboard import FileWriter

        self.file = FileWriter(self.temporary.name if self.temporary else self.folder, flush_secs=_SECONDS)

    def write(self, row: dict[str, Any]) -> None:
        """Add one step's row."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=float(value)) for key, value in row.items() if key != "step"]
        self.file.add_summary(Summary(value=values), row["step"])
        self.rows, self.waiting = self.rows + 1, self.waiting + 1
        if self.temporary and self.waiting >= max(FLUSH_EVERY, self.rows // 20):
            self._hand_over()
            self._open()

    def _hand_over(self) -> None:
        self.file.close()
        if self.temporary:
            for file in Path(self.temporary.name).iterdir():
                storage.upload(file, storage.join(self.folder, file.name))
                file.unlink()
        self.waiting = 0

    def close(self) -> None:
        """Write what waits."""
        self._hand_over()
        if self.temporary:
            self.temporary.cleanup()
