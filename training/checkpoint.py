"""Checkpoints that become visible only when whole, verify, and can be loaded by any number of workers.

``ROOT/NAME/checkpoints/FINGERPRINT/step-00000100/ATTEMPT/`` holds torch's sharded state;
``manifest.json`` beside the attempts comes last, put only if absent. There is no pointer to the newest.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import state_dict as dcp_state
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from dataeng import storage
from dataeng.cli import Failure
from dataeng.stage import library_versions
from training.checkpoint_files import HashedFiles, Part
from training.context import Context
from training.settings import TrainerConfig

log = logging.getLogger("millrace")
_STEP = "step-"


class Checkpoints:
    """Saves and finds the checkpoints of one run. One save is in flight at most."""

    def __init__(self, context: Context, settings: TrainerConfig) -> None:
        self.context, self.settings = context, settings
        self.folder = storage.join(context.folder, "checkpoints", context.checkpoint_fingerprint or "none")
        self.group: Any = dist.new_group(backend="gloo") if context.processes > 1 else None
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None
        self.scores: dict[int, float] = {}  # the validation loss of saved steps, where one was measured
        cuda = context.device.type == "cuda"
        # Its copies are kept from save to save: fresh memory costs as much as the copying.
        self.stager = DefaultStager(StagingOptions(cuda, False, False, cuda))

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Start saving after ``facts["step"]`` steps; the state is copied before this returns."""
        self.join()
        torch.serialization.set_crc32_options(False)  # files have a hash of their own; this one costs a quarter more
        state = _state(model, optimizer)
        attempt = self.context.broadcast(uuid.uuid4().hex)
        folder = storage.join(self.folder, f"{_STEP}{facts['step']:08d}")
        files, local = HashedFiles(storage.join(folder, attempt)), not storage.is_s3(folder)
        writer = FileSystemWriter(files.folder, single_file_per_rank=True, thread_count=1, sync_files=local)
        writer.fs = files
        group = {"process_group": self.group, "no_dist": self.group is None}
        saved = dcp.async_save(state, storage_writer=writer, async_stager=self.stager, **group)
        self.pending = self.thread.submit(self._publish, saved, folder, attempt, files, facts)

    def _publish(self, saved: Any, folder: str, attempt: str, files: HashedFiles, facts: dict[str, Any]) -> None:
        """Once every rank has written, put the manifest; then prune older checkpoints."""
        saved.result()
        files.close()
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
            "conditions": conditions(self.context, self.settings),
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

    def close(self) -> None:
        """Wait for the save in flight, and let go of the copies."""
        self.join()
        self.thread.shutdown()
        self.stager.close()

    def found(self) -> list[tuple[int, str]]:
        """Steps that have a manifest, newest first, each with its folder."""
        manifests = [e.path for e in storage.list_files(self.folder) if e.path.endswith("/manifest.json")]
        folders = [path.rpartition("/")[0] for path in manifests]
        return sorted(((int(folder.rpartition(_STEP)[2]), folder) for folder in folders), reverse=True)

    def _prune(self) -> None:
        """Delete those that no rule keeps, each one's manifest first."""
        found = self.found()
        for step, folder in found:
            if step not in self.scores:
                self.scores[step] = _validation_loss(folder)
        kept = kept_steps({step: self.scores[step] for step, _ in found}, self.settings)
        for _, folder in [entry for entry in found if entry[0] not in kept]:
            storage.delete([storage.join(folder, "manifest.json")])
            storage.delete([entry.path for entry in storage.list_files(folder)])

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load the newest checkpoint that verifies; its manifest comes back, or None where there is none.

        Raises Failure where one verified, but broke while it was loaded, and there is none before it.
        """
        candidates = self.context.broadcast(self._candidates() if self.context.first else None)
        half_loaded = ""
        for folder, manifest in candidates:
            state = _state(model, optimizer)
            groups = deepcopy(state["optimizer"]["param_groups"])  # loading writes into them
            problem, touched = self._load(state, folder, manifest)
            if problem is None:
                state["optimizer"]["param_groups"] = groups  # the settings' own; those saved are of one stage's names
                dcp_state.set_state_dict(
                    model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
                )
                self._say_what_differs(manifest)
                return dict(manifest)
            half_loaded = folder if touched else half_loaded
            self.context.log("%s: %s; going back to the checkpoint before", folder, problem)
        if half_loaded:
            raise Failure(f"{half_loaded}: could not be loaded, and there is no whole checkpoint before it: run again")
        optimizer.state.clear()  # asking for its state made one, as after a step: a new run must not begin with it
        return None

    def _load(self, state: dict[str, Any], folder: str, manifest: dict[str, Any]) -> tuple[str | None, bool]:
        """Fill ``state`` from a checkpoint; what is wrong with it on any rank, and whether the state was touched."""
        known = {part["name"]: Part(**part) for part in manifest["files"]}
        files = HashedFiles(storage.join(folder, manifest["attempt"]), known)
        reader = FileSystemReader(files.folder)
        reader.fs = files

        def verify() -> None:  # before anything is loaded: half a checkpoint must not overwrite the weights
            for name in known:
                owner = _writer_of(name)
                if owner is None or owner % self.context.processes == self.context.process:
                    files.verify(name)

        def load() -> None:
            dcp.load(state, storage_reader=reader, process_group=self.group, no_dist=self.group is None)

        try:
            problem = self._problem(verify)
            return (problem, False) if problem else (self._problem(load), True)
        finally:
            files.close()

    def _problem(self, action: Callable[[], None]) -> str | None:
        """What went wrong in ``action`` on any rank, or None; a collective."""
        problem = None
        try:
            action()
        except (Exception, CheckpointException) as error:  # noqa: BLE001 — told to all ranks; the one before is tried
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        problems: list[str | None] = [problem] * self.context.processes
        if self.group is not None:
            dist.all_gather_object(problems, problem, group=self.group)
        return next((text for text in problems if text), None)

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

    def _say_what_differs(self, manifest: Mapping[str, Any]) -> None:
        """Tell where this run is not promised to give the same bits as the one that saved."""
        before, now = manifest.get("conditions", {}), conditions(self.context, self.settings)
        other = [f"{key} {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]
        if other:
            self.context.log("the same samples go on, but losses can differ by rounding: %s", "; ".join(other))


def kept_steps(scores: Mapping[int, float], settings: TrainerConfig) -> set[int]:
    """The saved steps that are kept: the last ones, every k-th, and those of least validation loss.

    ``scores`` holds each saved step's validation loss, infinite where none was measured.
    """
    kept = set(sorted(scores)[-settings.keep :])
    if settings.keep_every:
        kept |= {step for step in scores if step % settings.keep_every == 0}
    ranked = sorted((score, step) for step, score in scores.items() if math.isfinite(score))
    return kept | {step for _, step in ranked[: settings.keep_best]}


def conditions(context: Context, settings: TrainerConfig) -> dict[str, Any]:
    """What has to be equal for a resumed run to give the same bits."""
    return {
        "workers": context.processes,
        "mesh": list(context.mesh.shape) if context.mesh is not None else [],
        "threads": torch.get_num_threads(),
        "micro_batch": settings.micro_batch,
        "precision": settings.precision,
        "compile": settings.compile,
        "device": _device_name(context.device.type),
        "versions": {"python": platform.python_version(), **library_versions(["numpy", "torch"])},
    }


@cache
def _device_name(kind: str) -> str:
    """The accelerator's name, or the processor's with the instructions that torch uses of it."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _writer_of(name: str) -> int | None:
    """The rank that wrote a file of that name, and reads it first; None for what all read."""
    rank = name.removeprefix("__").partition("_")[0]
    return int(rank) if rank.isdigit() else None


def _validation_loss(folder: str) -> float:
    """The validation loss of a checkpoint's step; infinite where none was measured or its manifest is damaged."""
    try:
        manifest = json.loads(storage.read_bytes(storage.join(folder, "manifest.json")))
        return float(manifest["metrics"].get("validation_loss", math.inf))
    except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
        return math.inf


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Model and optimiser as torch's checkpointing wants them, by parameter name."""
    weights, moments = dcp_state.get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}
