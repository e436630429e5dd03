"""PyTorch's profiler over some steps: a Chrome trace for each process under ROOT/NAME/profile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from dataeng import storage
from training.context import Context


class Trace:
    """Follows the steps from ``window[0]`` to ``window[1]``, counted from 1; nothing where that is None."""

    def __init__(self, context: Context, window: tuple[int, int] | None) -> None:
        self.context, self.window = context, window
        self.running: Any = None

    def before(self, step: int) -> None:
        """Called before each step; a run that resumes inside the window is followed from there."""
        if self.window and self.running is None and self.window[0] <= step <= self.window[1]:
            kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self.running, self.begun = profile(activities=kinds, record_shapes=True, profile_memory=True), step
            self.running.start()

    def after(self, step: int, last: int) -> None:
        """Called after each step: ends at the window's, or the run's, last one."""
        if self.running is None or not self.window or step < min(self.window[1], last):
            return
        self.running.stop()
        name = f"steps-{self.begun}-{step}-process-{self.context.process}.json.gz"
        path = storage.join(self.context.folder, "profile", name)
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary, name)
            self.running.export_chrome_trace(str(local))
            storage.upload(local, path)
        self.running, self.window = None, None
        self.context.log("steps %d to %d are profiled in %s", self.begun, step, path)
