"""Where a training step runs: its recipe, its place among the workers, and how samples reach it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import distributed_c10d
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from dataeng import stage, storage
from dataeng.recipe import Recipe
from training.settings import Mesh
from training.spread import Spread
from training.stages import Stage
from training.stop import Wish

_log = logging.getLogger("millrace")
# feed(read, keys) yields read(key) for each key in order, reading ahead. `read` can be pickled.
Feed = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def read_ahead(read: Callable[[Any], Any], keys: Sequence[Any], ahead: int = 2) -> Iterator[Any]:
    """``read(key)`` for each key in order, ``ahead`` of them read by threads before they are asked for."""
    with ThreadPoolExecutor(max(ahead, 1)) as pool:
        waiting = [pool.submit(read, key) for key in keys[:ahead]]
        for index in range(len(keys)):
            value = waiting.pop(0).result()
            if index + ahead < len(keys):
                waiting.append(pool.submit(read, keys[index + ahead]))
            yield value


@dataclass
class Context:
    """One worker's view of one training step (a table of the recipe). Engines make it, methods use it."""

    recipe: Recipe
    name: str  # of the table; the step publishes ROOT/NAME
    config: Any
    rank: int = 0  # which part of each batch: ranks that split one model's tensors or rows have the same
    world: int = 1  # parts of a batch
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None  # of "replicate", "shard", "tensor", "pipeline" before them where it is split so
    process: int = 0  # this process among all
    processes: int = 1
    spread: Spread | None = None  # this process's part of its rows, where those are split (mesh.context)
    blocks: Stage | None = None  # this process's part of the blocks, where those are split (mesh.pipeline)
    feed: Feed = read_ahead
    report: Callable[[dict[str, Any]], None] | None = None  # told every step's row, on every rank (a sweep listens)
    notice: Callable[[], Wish | None] | None = None  # asks the engine whether to leave; a collective
    checkpoint_fingerprint: str = ""  # set by begin()

    @classmethod
    def single(cls, recipe: Recipe, name: str, device: torch.device | None = None) -> Context:
        """The context of a plain process: tests, the debugger, ``python -m training``."""
        return cls(recipe, name, recipe.step(name), device=_chosen(device))

    @classmethod
    def distributed(
        cls, recipe: Recipe, name: str, feed: Feed = read_ahead, device: torch.device | None = None
    ) -> Context:
        """The context of one process; torch.distributed must be up (one of one is like ``single``).

        ``device``: by default the first GPU, or the CPU. Neighbouring processes split tensors, then rows
        (``mesh.tensor``, ``mesh.context``), then shard and copy; the first of ``mesh.pipeline`` parts of all have the
        first stage.
        """
        config, device = recipe.step(name), _chosen(device)
        processes = dist.get_world_size() if dist.is_initialized() else 1
        if processes == 1:
            return cls(recipe, name, config, device=device, feed=feed)
        layout: Mesh = getattr(config, "mesh", None) or Mesh.model_validate({})
        shape, inner = layout.shape(processes, name), layout.context * layout.tensor
        names, blocks = ("replicate", "shard", "tensor"), None
        if layout.pipeline > 1:
            mesh = init_device_mesh(device.type, (layout.pipeline, *shape), mesh_dim_names=("pipeline", *names))
            blocks = Stage(mesh.get_local_rank("pipeline"), layout.pipeline, mesh.get_group("pipeline"))
        else:
            mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
        process, each = dist.get_rank(), processes // layout.pipeline
        spread = _spread(layout, process, processes) if layout.context > 1 else None
        seconds = recipe.step("train").engine_timeout_seconds
        for group in (*mesh.get_all_groups(), *([spread.group] if spread else [])):  # NCCL's own would be 10 minutes
            distributed_c10d.set_timeout(timedelta(seconds=seconds), group)
        parts = (process % each // inner, each // inner, device, mesh, process, processes, spread, blocks)
        return cls(recipe, name, config, *parts, feed)

    @property
    def seed(self) -> int:
        """The recipe's seed."""
        return self.recipe.seed

    @property
    def title(self) -> str:
        """The table's own name, also in a trial, whose ``name`` is a path of its own: what orders of data follow."""
        return self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """ROOT/NAME."""
        return stage.folder_of(self.recipe.root, self.name)

    @property
    def checkpoints(self) -> str:
        """ROOT/NAME/checkpoints/FINGERPRINT: what this run, and none of other settings, goes on from."""
        return storage.join(self.folder, "checkpoints", self.checkpoint_fingerprint or "none")

    @property
    def first(self) -> bool:
        """Whether this is process 0, which writes what is written once."""
        return self.process == 0

    @property
    def tensors(self) -> int:
        """Processes that split a model's tensors between them."""
        return self.mesh["tensor"].size() if self.mesh is not None else 1

    @property
    def copies(self) -> int:
        """Processes that have the same losses, since they split a model's tensors or blocks between them."""
        return self.tensors * (self.blocks.count if self.blocks else 1)

    @property
    def averaged(self) -> int:
        """Processes over which gradients are averaged."""
        return self.processes // self.copies

    def place(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch on this process's device: its part of the rows where those are split."""
        moved = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        return self.spread.cut(moved) if self.spread else moved

    def log(self, message: str, *values: object) -> None:
        """One line of log, from process 0 only."""
        if self.first:
            _log.info(f"{self.name}: {message}", *values)

    def broadcast(self, value: Any) -> Any:
        """Process 0's value, on every process."""
        if self.processes == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def first_does(self, action: Callable[[], Any]) -> Any:
        """What process 0 got from ``action``, which only it runs, on every process; its error is raised on all."""
        found: Any = None
        if self.first:
            try:
                found = action()
            except Exception as error:  # noqa: BLE001 — handed to all ranks, and raised below
                found = error
        found = self.broadcast(found)
        if isinstance(found, Exception):
            raise found
        return found

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every process."""
        if self.processes == 1:
            return [value]
        values: list[Any] = [None] * self.processes
        dist.all_gather_object(values, value)
        each = self.processes // (self.blocks.count if self.blocks else 1)
        return values[: each : each // self.world]

    def total(self, values: Sequence[float]) -> list[float]:
        """Each number summed over the ranks (and the parts of their rows), in double precision."""
        if self.processes == 1:
            return [float(value) for value in values]
        numbers = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers)
        return [float(value) / self.copies for value in numbers.tolist()]

    def all_true(self, value: bool) -> bool:
        """Whether ``value`` holds on every rank."""
        return self.total([not value])[0] == 0

    def share(self, count: int) -> range:
        """The indices of 0 … count - 1 that are this rank's: [⌊rB/W⌋, ⌊(r+1)B/W⌋)."""
        return range(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.processes > 1:
            dist.barrier()

    def begin(self, inputs: Callable[[Recipe, str], list[dict[str, Any]]]) -> stage.Attempt | None:
        """An attempt at this step, the same on all ranks, or None where it is published already.

        ``inputs(recipe, name)`` are entries of ``dataeng.stage.stage_inputs``, as rank 0 finds them. An error of
        rank 0 is raised on all.
        """

        def begun() -> tuple[object, str]:
            entries = inputs(self.recipe, self.name)
            # Another max_steps may continue a run: checkpoints say how far (TrainerConfig.extendable_until). So may
            # other versions of libraries: checkpoints say of which they are.
            extendable = self.config.model_copy(update={"max_steps": 0})
            own = stage.fingerprint(extendable, self.seed, entries, with_libraries=False)
            return stage.begin(self.recipe, self.name, entries), own

        attempt, self.checkpoint_fingerprint = self.first_does(begun)
        return attempt if isinstance(attempt, stage.Attempt) else None


def _spread(layout: Mesh, process: int, processes: int) -> Spread:
    """This process's part of its rows; every process makes every group, as torch wants it."""
    split = layout.context * layout.tensor
    rows = [
        [start + inner + layout.tensor * part for part in range(layout.context)]
        for start in range(0, processes, split)
        for inner in range(layout.tensor)
    ]
    group, _ = dist.new_subgroups_by_enumeration(rows)
    return Spread(process // layout.tensor % layout.context, layout.context, group)


def default_device(local_rank: int) -> torch.device:
    """The GPU of this rank where there are any, else the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def _chosen(device: torch.device | None) -> torch.device:
    """That device, by default the first GPU or the CPU; a GPU becomes the process's own."""
    device = device or default_device(0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
