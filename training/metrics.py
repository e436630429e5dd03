"""``ROOT/NAME/metrics.jsonl`` and TensorBoard's files: one row a step, without doubles after a resume.

The rows that a resumed run goes on from stand beside its checkpoints: another run in the same folder, with other
settings, may have written ``metrics.jsonl`` since.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from dataeng import storage
from training.context import Context
from training.trackers import Trackers

FLUSH_EVERY = 200  # rows, at least; and a twentieth of those there are


class Metrics:
    """Writes rows from rank 0. Rows after the step that a run resumed at are taken away first."""

    def __init__(self, context: Context, resumed: int, max_steps: int, before: int) -> None:
        """``resumed`` at that step from a run of ``before`` steps; this one has ``max_steps``."""
        self.context, self.path = context, storage.join(context.folder, "metrics.jsonl")
        self.own, begun = (storage.join(context.checkpoints, f"metrics-{n}.jsonl") for n in (max_steps, before))
        self.waiting = 0
        self.lines: list[str] = []
        self.trackers = Trackers(context)
        if context.first:
            self.lines = [line for line in _lines(begun) if resumed and json.loads(line)["step"] <= resumed]
            self.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        self.trackers.close()
        if kind is None and self.context.first:
            _write_tensorboard(storage.join(self.context.folder, "tensorboard"), self.lines)

    def write(self, row: dict[str, Any]) -> None:
        """Add one step's row."""
        if not self.context.first:
            return
        self.trackers.write(row)
        self.lines.append(json.dumps(row))
        self.waiting += 1
        if storage.is_s3(self.path):
            if self.waiting >= max(FLUSH_EVERY, len(self.lines) // 20):
                self.flush()
        else:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(self.lines[-1] + "\n")

    def flush(self) -> None:
        """Write the rows where they are kept (object storage cannot append)."""
        if self.context.first:
            text = "".join(line + "\n" for line in self.lines).encode()
            for path in (self.own, self.path):
                storage.write_bytes(path, text)
            self.waiting = 0


def _lines(path: str) -> list[str]:
    """The whole rows of an earlier run; a last line that a kill cut short is left out."""
    try:
        text = storage.read_bytes(path).decode()
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def _write_tensorboard(folder: str, lines: list[str]) -> None:
    """TensorBoard's event file of all rows, replacing the run's earlier ones."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as temporary:
        with SummaryWriter(temporary) as writer:
            for line in lines:
                row = json.loads(line)
                for key, value in row.items():
                    if key != "step":
                        writer.add_scalar(key, value, row["step"])
        storage.delete([entry.path for entry in storage.list_files(folder)])
        for file in Path(temporary).iterdir():
            storage.upload(file, storage.join(folder, file.name))
