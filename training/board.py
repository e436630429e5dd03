"""TensorBoard's event files, written while a run goes on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dataeng import storage
from dataeng.cli import one_line
from training.context import Context

_SECONDS = 10  # that rows wait at most for the disk
_PART = 200


def is_part(waiting: int, rows: int) -> bool:
    """Whether so many rows that wait, of all, go to object storage, which cannot append: 200, and a twentieth."""
    return waiting >= max(_PART, rows // 20)


class Board:
    """ROOT/NAME/tensorboard, in place of a run's earlier files: one that grows, or on S3 one for some rows each.

    All is done in a thread of its own, and what fails there is said once: it neither holds training up nor ends it.
    """

    def __init__(self, context: Context, lines: Sequence[str]) -> None:
        """``lines``: the rows that a resumed run goes on from."""
        self.context, self.folder = context, storage.join(context.folder, "tensorboard")
        self.temporary = tempfile.TemporaryDirectory() if storage.is_s3(self.folder) else None
        self.rows = self.waiting = self.parts = 0
        self.file: Any = None
        self.failed = False
        self.thread = ThreadPoolExecutor(1, "tensorboard")
        self._do(self._begin, lines)

    def write(self, row: dict[str, Any]) -> None:
        """Add one step's row."""
        self._do(self._write, row)

    def close(self) -> None:
        """Write what waits."""
        self._do(self._hand_over)
        self.thread.shutdown()
        if self.temporary:
            self.temporary.cleanup()

    def _do(self, action: Callable[..., None], *values: Any) -> None:
        def guarded() -> None:
            if self.failed:
                return
            try:
                action(*values)
            except Exception as error:  # noqa: BLE001 — metrics.jsonl has the rows
                self.failed = True
                self.context.log("TensorBoard's files take no more rows: %s", one_line(error))

        self.thread.submit(guarded)

    def _begin(self, lines: Sequence[str]) -> None:
        storage.delete([entry.path for entry in storage.list_files(self.folder)])
        self._open()
        for line in lines:
            self._write(json.loads(line))

    def _open(self) -> None:
        from torch.utils.tensorboard import FileWriter

        self.file = FileWriter(self.temporary.name if self.temporary else self.folder, flush_secs=_SECONDS)

    def _write(self, row: dict[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=float(value)) for key, value in row.items() if key != "step"]
        self.file.add_summary(Summary(value=values), row["step"])
        self.rows, self.waiting = self.rows + 1, self.waiting + 1
        if self.temporary and is_part(self.waiting, self.rows):
            self._hand_over()
            self._open()

    def _hand_over(self) -> None:
        self.file.close()
        if self.temporary:
            for file in Path(self.temporary.name).iterdir():
                # Read in the order of their names.
                storage.upload(file, storage.join(self.folder, f"events.out.tfevents.{self.parts:010d}.millrace"))
                file.unlink()
                self.parts += 1
        self.waiting = 0
