"""Checkpoints that become visible only when whole, verify, and can be loaded by any number of workers.

``ROOT/NAME/checkpoints/FINGERPRINT/step-00000100/ATTEMPT/`` holds torch's sharded state;
``manifest.json`` beside the attempts comes last, put only if absent. There is no pointer to the newest.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import state_dict as dcp_state
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, FileSystemWriter

from dataeng import storage
from dataeng.stage import library_versions
from training.context import Context
from training.settings import TrainerConfig

log = logging.getLogger("millrace")


class Damaged(Exception):
    """A checkpoint's bytes are not those that were written."""


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint: its size in bytes and BLAKE2b-128."""

    name: str
    size: int
    hash: str


class _HashedFiles(FileSystem):
    """Checkpoint files in any storage: hashed while written, verified while read."""

    def __init__(self, folder: str, known: dict[str, Part] | None = None) -> None:
        self.folder, self.known = folder, known or {}
        self.written: dict[str, Part] = {}

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        """A stream to read from, its bytes verified, or one to write to, kept when closed."""
        name = Path(path).name
        if "r" in mode:
            yield io.BytesIO(self.verified(name))
            return
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary, name)
            with open(local, "wb+") as file:
                yield file  # type: ignore[misc]
            with open(local, "rb") as file:
                state = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            name = name.removesuffix(".tmp")
            self.written[name] = Part(name, local.stat().st_size, state.hexdigest())
            storage.upload(local, storage.join(self.folder, name))

    def verified(self, name: str) -> bytes:
        """A file's bytes; raises Damaged where they are not what the manifest says."""
        data, part = storage.read_bytes(storage.join(self.folder, name)), self.known[name]
        if len(data) != part.size or hashlib.blake2b(data, digest_size=16).hexdigest() != part.hash:
            raise Damaged(f"{storage.join(self.folder, name)}: its bytes are not those of the manifest")
        return data

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether this attempt wrote (or its manifest names) a file."""
        return Path(path).name in self.known or Path(path).name in self.written

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Nothing to do: writing makes folders."""

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Nothing to do: a file gets its last name when written."""

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Nothing to do: an attempt's folder is new."""


class Checkpoints:
    """Saves and finds the checkpoints of one run. One save is in flight at most."""

    def __init__(self, context: Context, settings: TrainerConfig) -> None:
        self.context, self.settings = context, settings
        self.folder = storage.join(context.folder, "checkpoints", context.checkpoint_fingerprint or "none")
        self.group: Any = dist.new_group(backend="gloo") if context.processes > 1 else None
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Start saving after ``facts["step"]`` steps; the state is copied before this returns."""
        self.join()
        state = _state(model, optimizer)
        attempt = self.context.broadcast(uuid.uuid4().hex)
        folder = storage.join(self.folder, f"step-{facts['step']:08d}")
        files = _HashedFiles(storage.join(folder, attempt))
        writer = FileSystemWriter(files.folder, single_file_per_rank=True, thread_count=1)
        writer.fs = files
        saved = dcp.async_save(state, storage_writer=writer, process_group=self.group, no_dist=self.group is None)
        self.pending = self.thread.submit(self._publish, saved, folder, attempt, files, facts)

    def _publish(self, saved: Any, folder: str, attempt: str, files: _HashedFiles, facts: dict[str, Any]) -> None:
        """Once every rank has written, put the manifest; then prune older checkpoints."""
        saved.result()
        parts = [asdict(part) for part in files.written.values()]
        if self.group is not None:
            every: list[Any] | None = [None] * self.context.processes if self.context.first else None
            dist.gather_object(parts, every, dst=0, group=self.group)
            parts = [part for some in every or [] for part in some]
        if not self.context.first:
            return
        manifest = {
            "format": 1,
            "attempt": attempt,
            "files": sorted(parts, key=lambda part: str(part["name"])),
            "max_steps": self.settings.max_steps,
            "workers": self.context.processes,
            "threads": torch.get_num_threads(),
            "device": self.context.device.type,
            "micro_batch": self.settings.micro_batch,
            "compile": self.settings.compile,
            "versions": library_versions(["torch"]),
            **facts,
        }
        text = json.dumps(manifest, indent=1).encode()
        if not storage.write_if(storage.join(folder, "manifest.json"), text, None):
            log.info("%s: a checkpoint stands there already", folder)
        self._prune()

    def join(self) -> None:
        """Wait for the save in flight; raises what went wrong in it."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            pending.result()

    def found(self) -> list[tuple[int, str]]:
        """Steps that have a manifest, newest first, each with its folder."""
        manifests = [e.path for e in storage.list_files(self.folder) if e.path.endswith("/manifest.json")]
        folders = [path.rpartition("/")[0] for path in manifests]
        return sorted(((int(folder.rpartition("step-")[2]), folder) for folder in folders), reverse=True)

    def _prune(self) -> None:
        """Delete all but the newest, each one's manifest first."""
        for _, folder in self.found()[self.settings.keep :]:
            manifest = storage.join(folder, "manifest.json")
            storage.delete([manifest])
            storage.delete([entry.path for entry in storage.list_files(folder)])

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load the newest checkpoint that verifies; its manifest comes back, or None where there is none."""
        candidates = self.context.broadcast(self._candidates() if self.context.first else None)
        for folder, manifest in candidates:
            state = _state(model, optimizer)
            problem = self._load(state, folder, manifest)
            if problem is None:
                dcp_state.set_state_dict(
                    model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
                )
                return dict(manifest)
            self.context.log("%s: %s; going back to the checkpoint before", folder, problem)
        optimizer.state.clear()  # asking for its state made one, as after a step: a new run must not begin with it
        return None

    def _load(self, state: dict[str, Any], folder: str, manifest: dict[str, Any]) -> str | None:
        """Fill ``state`` from a checkpoint; what is wrong with it on any rank, or None."""
        known = {part["name"]: Part(**part) for part in manifest["files"]}
        files = _HashedFiles(storage.join(folder, manifest["attempt"]), known)
        reader = FileSystemReader(files.folder)
        reader.fs = files

        def verify() -> None:  # before anything is loaded: half a checkpoint must not overwrite the weights
            for name in sorted(known)[self.context.process :: self.context.processes]:
                files.verified(name)

        def load() -> None:
            dcp.load(state, storage_reader=reader, process_group=self.group, no_dist=self.group is None)

        return self._problem(verify) or self._problem(load)

    def _problem(self, action: Callable[[], None]) -> str | None:
        """What went wrong in ``action`` on any rank, or None; a collective."""
        problem = None
        try:
            action()
        except (Exception, CheckpointException) as error:  # noqa: BLE001 — told to all ranks; the one before is tried
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return next((text for text in self.context.gather(problem) if text), None)

    def _candidates(self) -> list[tuple[str, dict[str, Any]]]:
        """Whole checkpoints that this run may go on from, newest first (rank 0)."""
        entries = {entry.path: entry.size for entry in storage.list_files(self.folder)}
        good = []
        for step, folder in self.found():
            try:
                manifest = json.loads(storage.read_bytes(storage.join(folder, "manifest.json")))
                base = storage.join(folder, manifest["attempt"])
                lost = [p["name"] for p in manifest["files"] if entries.get(storage.join(base, p["name"])) != p["size"]]
                last = manifest["max_steps"]
            except (ValueError, KeyError, TypeError) as error:
                self.context.log("%s: its manifest is damaged (%s); passed over", folder, error)
                continue
            if lost:
                self.context.log("%s: %s is missing or has another size; passed over", folder, lost[0])
            elif self._is_continued(step, last):
                good.append((folder, manifest))
        return good

    def _is_continued(self, step: int, last: int) -> bool:
        """Whether a run of ``last`` steps had, up to ``step``, the learning rates that this one has."""
        if last == self.settings.max_steps:
            return True
        other = self.settings.model_copy(update={"max_steps": last})
        return step <= min(self.settings.extendable_until(), other.extendable_until())


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Model and optimiser as torch's checkpointing wants them, by parameter name."""
    weights, moments = dcp_state.get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}
