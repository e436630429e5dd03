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
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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
from training.checkpoint_files import Damaged, HashedFiles, Part
from training.context import Context
from training.settings import TrainerConfig

log = logging.getLogger("millrace")
_STEP = "step-"


class _SortedOut(NamedTuple):
    """The checkpoints of a folder, newest first."""

    usable: dict[str, dict[str, Any]]  # by folder, the manifests of whole ones that this run may go on from
    damaged: dict[tuple[int, str], str]  # by step and folder, what is wrong


class Checkpoints:
    """Saves and finds the checkpoints of one run. One save is in flight at most."""

    def __init__(self, context: Context, settings: TrainerConfig) -> None:
        self.context, self.settings = context, settings
        self.folder = context.checkpoints
        self.group: Any = dist.new_group(backend="gloo") if context.processes > 1 else None
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.pending: Future[None] | None = None
        self.manifests: dict[tuple[str, str], bytes] = {}  # by folder and tag
        self.damaged: set[str] = set()  # attempts whose bytes were found to be others than those written
        cuda = context.device.type == "cuda"
        # Its copies are kept from save to save: fresh memory costs as much as the copying.
        self.stager = DefaultStager(StagingOptions(cuda, False, False, cuda))

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Start saving after ``facts["step"]`` steps; the state is copied before this returns."""
        self.join()
        torch.serialization.set_crc32_options(False)  # files have a hash of their own; this one costs a quarter more
        state, _ = _state(model, optimizer)
        attempt = self.context.broadcast(uuid.uuid4().hex)
        folder = storage.join(self.folder, f"{_STEP}{facts['step']:08d}")
        files, local = HashedFiles(storage.join(folder, attempt)), not storage.is_s3(folder)
        # Nothing is copied ahead: all is on the CPU, and a thread's copying would open a context on the first GPU.
        ahead = {"single_file_per_rank": True, "thread_count": 1, "per_thread_copy_ahead": 0}
        writer = FileSystemWriter(files.folder, sync_files=local, **ahead)  # type: ignore[arg-type]
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
        text, path = json.dumps(manifest, indent=1).encode(), storage.join(folder, "manifest.json")
        if not storage.write_if(path, text, None):
            if folder in self._sorted_out().usable:
                log.info("%s: a checkpoint stands there already", folder)
            else:
                log.info("%s: takes the place of one that this run cannot go on from", folder)
                storage.delete([path])
                storage.write_if(path, text, None)
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

    def found(self) -> list[tuple[int, str, str]]:
        """Steps that have a manifest, newest first, each with its folder and the manifest's tag."""
        manifests = [entry for entry in storage.list_files(self.folder) if entry.path.endswith("/manifest.json")]
        places = ((entry.path.rpartition("/")[0], entry.tag) for entry in manifests)
        return sorted(((int(folder.rpartition(_STEP)[2]), folder, tag) for folder, tag in places), reverse=True)

    def _manifest(self, folder: str, tag: str) -> bytes:
        """A manifest's bytes, read once: there may be many, and each save looks at all."""
        if (folder, tag) not in self.manifests:
            self.manifests[folder, tag] = storage.read_bytes(storage.join(folder, "manifest.json"))
        return self.manifests[folder, tag]

    def _prune(self) -> None:
        """Delete this run's own that no rule keeps, and damaged ones that it is past; each one's manifest first.

        What a run with another ``max_steps`` may go on from, and this one may not, is neither counted nor touched.
        """
        sorted_out = self._sorted_out()
        steps = {int(manifest["step"]): folder for folder, manifest in sorted_out.usable.items()}
        scores = {step: _validation_loss(sorted_out.usable[folder]) for step, folder in steps.items()}
        kept = kept_steps(scores, self.settings)
        dropped = [folder for step, folder in steps.items() if step not in kept]
        dropped += [folder for step, folder in sorted_out.damaged if step <= max(steps, default=-1)]
        for folder in dropped:
            storage.delete([storage.join(folder, "manifest.json")])
            storage.delete([entry.path for entry in storage.list_files(folder)])

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load the newest checkpoint that verifies; its manifest comes back, or None where there is none.

        Raises Failure where one cannot be read (a full disk, a store that does not answer: that is no damage), and
        where one verified, but broke while it was loaded, and there is none before it.
        """
        candidates = self.context.first_does(self._candidates)
        half_loaded = ""
        for folder, manifest in candidates.items():
            state, groups = _state(model, optimizer)
            problem, touched = self._load(state, folder, manifest)
            if problem is None:
                state["optimizer"]["param_groups"] = groups
                dcp_state.set_state_dict(
                    model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
                )
                self._say_what_differs(manifest)
                return dict(manifest)
            if touched:
                half_loaded = folder
            else:
                self.damaged.add(manifest["attempt"])
            self.context.log("%s: %s; going back to the checkpoint before", folder, problem)
        if half_loaded:
            raise Failure(f"{half_loaded}: could not be loaded, and there is no whole checkpoint before it: run again")
        if candidates:
            self.context.log("%s: no whole checkpoint is left: training starts again", self.context.name)
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
            problems = self._problems(verify)
            if other := [text for is_damage, text in problems if not is_damage]:
                raise Failure(
                    f"{folder}: could not be read ({other[0]}): run again; if it stays so, delete its manifest.json to "
                    "go on from the one before"
                )
            if problems:
                return problems[0][1], False
            return next((text for _, text in self._problems(load)), None), True
        finally:
            files.close()

    def _problems(self, action: Callable[[], None]) -> list[tuple[bool, str]]:
        """What went wrong in ``action``, of all ranks, and whether bytes were found to be damaged; a collective."""
        problem: tuple[bool, str] | None = None
        try:
            action()
        except (Exception, CheckpointException) as error:  # noqa: BLE001 — told to all ranks
            problem = isinstance(error, Damaged), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        problems: list[tuple[bool, str] | None] = [problem] * self.context.processes
        if self.group is not None:
            dist.all_gather_object(problems, problem, group=self.group)
        return [found for found in problems if found is not None]

    def _candidates(self) -> dict[str, dict[str, Any]]:
        """Whole checkpoints that this run may go on from, by folder, newest first (rank 0); says what it passes."""
        sorted_out = self._sorted_out()
        for problem in sorted_out.damaged.values():
            self.context.log("%s; passed over", problem)
        if not sorted_out.usable:
            self._say_what_is_not_continued()
        return sorted_out.usable

    def _say_what_is_not_continued(self) -> None:
        """Tell of checkpoints of this step that this run does not go on from."""
        others = [
            e.path for e in storage.list_files(self.folder.rpartition("/")[0]) if e.path.endswith("manifest.json")
        ]
        if own := [path for path in others if path.startswith(f"{self.folder}/")]:
            self.context.log(
                "training starts anew: the %d checkpoints in %s are damaged, past this run's last step, or of another "
                "max_steps, on which learning rates depend (schedule = %r)",
                *(len(own), self.folder, self.settings.schedule),
            )
        elif others:
            self.context.log("training starts anew: the %d checkpoints are of other settings or inputs", len(others))

    def _sorted_out(self) -> _SortedOut:
        """What stands in the folder."""
        found, manifests = _SortedOut({}, {}), self.found()
        # Listed after them: what a manifest names was there before it.
        entries = {entry.path: entry.size for entry in storage.list_files(self.folder)}
        for step, folder, tag in manifests:
            try:
                manifest = json.loads(self._manifest(folder, tag))
                base = storage.join(folder, manifest["attempt"])
                lost = [p["name"] for p in manifest["files"] if entries.get(storage.join(base, p["name"])) != p["size"]]
                last, is_bound = manifest["max_steps"], manifest.get("bound", True)
            except FileNotFoundError:  # pruned by another run meanwhile
                continue
            except (ValueError, KeyError, TypeError) as error:
                found.damaged[step, folder] = f"{folder}: its manifest is damaged ({error})"
                continue
            if lost:
                found.damaged[step, folder] = f"{folder}: {lost[0]} is missing or has another size"
            elif manifest["attempt"] in self.damaged:
                found.damaged[step, folder] = f"{folder}: its bytes are not those of the manifest"
            elif self._is_continued(step, last) and (is_bound or last == self.settings.max_steps):
                found.usable[folder] = manifest
        return found

    def _is_continued(self, step: int, last: int) -> bool:
        """Whether a run of ``last`` steps had, up to ``step``, the learning rates that this one has."""
        if last == self.settings.max_steps:
            return True
        if step >= self.settings.max_steps:  # a longer run's: not the model that was asked for
            return False
        other = self.settings.model_copy(update={"max_steps": last})
        return step <= min(self.settings.extendable_until(), other.extendable_until())

    def _say_what_differs(self, manifest: Mapping[str, Any]) -> None:
        """Tell where this run is not promised to give the same bits as the one that saved."""
        before, now = manifest.get("conditions", {}), conditions(self.context, self.settings)
        other = [f"{key} {before.get(key)} → {now[key]}" for key in now if before.get(key) != now[key]]
        if other:
            self.context.log("the same samples go on, but losses can differ by rounding: %s", "; ".join(other))


def kept_steps(scores: Mapping[int, float], settings: TrainerConfig) -> set[int]:
    """The saved steps that are kept: the last ones, every k-th, and those of least validation loss; of wsd's also
    the last before the rate falls, which a longer run goes on from.

    ``scores`` holds each saved step's validation loss, infinite where none was measured.
    """
    kept = set(sorted(scores)[-settings.keep :])
    if settings.keep_every:
        kept |= {step for step in scores if step % settings.keep_every == 0}
    if settings.schedule == "wsd":
        kept |= set(sorted(step for step in scores if step <= settings.extendable_until())[-1:])
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


def _validation_loss(manifest: Mapping[str, Any]) -> float:
    """The validation loss of a checkpoint's step; infinite where none was measured."""
    return float(manifest["metrics"].get("validation_loss", math.inf))


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], list[Any]]:
    """Model and optimiser as torch's checkpointing wants them, by parameter name; the optimiser's groups apart.

    Groups are the settings' own and not kept: how many there are depends on the layers that a stage has.
    """
    weights, moments = dcp_state.get_state_dict(model, optimizer)
    groups: list[Any] = moments.pop("param_groups")  # type: ignore[assignment]
    return {"model": weights, "optimizer": moments}, groups
