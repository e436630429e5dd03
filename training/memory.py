"""What a training step will need: ``python -m training.memory RECIPE [KEY=VALUE …]``.

Parameters, memory by kind on each GPU, FLOPs a token and tokens a second at a given MFU, for the table
`memory.target` on `memory.gpus` GPUs. Activations are counted by running a micro-batch on tensors that have no
memory. With `memory.check` one real step is run on this machine,
and the growth of its memory printed beside the estimate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataeng.cli import UserError, run
from dataeng.recipe import Recipe, Table, load, runtime

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.methods.pretrain import Config as Pretrain
    from training.model.decoder import Decoder
    from training.stages import Stage

_STATE_BYTES = {"adamw": 8, "lamb": 8, "muon": 4, "sgd": 4}  # of a parameter; muon: of a hidden matrix


class Config(Table):
    """Table `memory`: for which step and machines."""

    target: str = runtime("pretrain", description="The table of pretraining that is looked at")
    gpus: int = runtime(1, ge=1, description="Workers in all, laid out by the target's mesh")
    vocabulary: int | None = runtime(None, ge=2, description="By default that of the recipe's tokenizer table")
    mfu: float = runtime(0.4, gt=0, le=1, description="Share of the peak that is expected")
    peak_tflops: float = runtime(989.5, gt=0, description="Dense bf16 peak of one GPU (H100 and H200: 989.5)")
    check: bool = runtime(False, description="Run one step here and print what it took")


@dataclass(frozen=True)
class Need:
    """Bytes on each GPU by kind, and what a token costs."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    gathered: int  # weights in full while a unit computes
    activations: int  # at the peak of a micro-batch, with what is needed for a moment
    flops: float  # a token, causal form
    flops_full: float  # a token, 12 × form

    @property
    def total(self) -> int:
        """Bytes on each GPU in all."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def activations(config: Pretrain, vocabulary: int, length: int, index: int = 0, begun: int = 1) -> int:
    """Bytes at the peak of a step of micro-batches of ``length``-token rows, beside weights and optimiser.

    Of stage ``index``, which begins so many micro-batches before the first backward. They run on tensors that have
    shapes and no memory, under torch's own tracker.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.nn import functional as F

    from training.model.positions import rotary

    if config.model.positions == "rotary":  # computes numbers once and keeps them: a fake tensor has none
        rotary(torch.zeros((1, 1)), config.model)
        rotary(torch.zeros((1, 1)), config.model, local=True)
    tracker = MemTracker()
    with FakeTensorMode():
        model, stage = _stage(config, vocabulary, index)
        _recompute(model, config)
        tracker.track_external(model)
        sides = _sides(config, length)
        tokens = sides[0]
        low = torch.autocast("cpu", torch.bfloat16) if config.precision != "fp32" else nullcontext()

        def forward() -> Tensor:
            if not stage.first:
                stage.arrived = torch.zeros((*tokens.shape, config.model.width), requires_grad=True)
            with low:
                made: Tensor = model(*sides)
                if not stage.last:
                    return made
                return F.cross_entropy(made.flatten(0, 1).float(), tokens.flatten(), reduction="sum")

        with tracker:
            made = forward()
            kept = _bytes(tracker.get_tracker_snapshot("current"))
            made.backward(torch.ones_like(made))
    sent = 0 if stage.first else tokens.numel() * config.model.width * 4  # what arrived is no activation of ours
    return _bytes(tracker.get_tracker_snapshot("peak")) + (begun - 1) * kept + begun * sent


def _sides(config: Pretrain, length: int) -> list[Tensor]:
    """A micro-batch as the model takes it: tokens, and of an encoder–decoder as many answers."""
    import torch

    tokens = torch.zeros((config.micro_batch, length), dtype=torch.long)
    return [tokens] * (2 if config.model.kind == "encoder_decoder" else 1)


def _bytes(found: dict[Any, dict[Any, int]]) -> int:
    """Activations and what is needed for a moment, of a tracker's snapshot of one device."""
    kinds = next(iter(found.values()))
    return sum(size for kind, size in kinds.items() if str(kind).endswith((".ACT", ".TEMP")))


def _stage(config: Pretrain, vocabulary: int, index: int) -> tuple[Decoder, Stage]:
    """A stage of the model, and where it stands; the whole model is the only one."""
    from training import stages
    from training.model.assemble import assemble

    model: Any = assemble(config.model, vocabulary)
    stage = stages.Stage(index, config.mesh.pipeline)
    if stage.count > 1:
        stages.cut(model, stage)
    return model, stage


def _recompute(model: nn.Module, config: Pretrain) -> None:
    from training import parallel
    from training.model.block import Block

    for module in model.modules():
        if isinstance(module, Block):
            parallel.recompute(module, config.recompute)


def need(config: Pretrain, vocabulary: int, workers: int, length: int) -> Need:
    """What each of ``workers`` GPUs needs for rows of ``length`` tokens; of a pipeline, those of its fullest stage.

    Raises UserError for a wrong mesh.
    """
    config.mesh.shape(workers, "memory")
    config.mesh.check(config.model, length, "memory")
    every = [_stage_need(config, vocabulary, workers, length, index) for index in range(config.mesh.pipeline)]
    return max(every, key=lambda found: found.total)


def _stage_need(config: Pretrain, vocabulary: int, workers: int, length: int, index: int) -> Need:
    import torch

    from training import flops, optim, parallel

    replicas, shards, tensor = config.mesh.shape(workers)
    with torch.device("meta"):
        model, stage = _stage(config, vocabulary, index)
    count = sum(parameter.numel() for parameter in model.parameters())
    parts, states = shards * tensor, 0
    for group in optim.groups(model, config):
        each = _STATE_BYTES[config.optimizer] if group["hidden"] or config.optimizer != "muon" else 8
        states += each * sum(parameter.numel() for parameter in group["params"])
    whole_units = count <= parallel.SMALL or stage.count > 1  # gathered once a step
    unit = count if whole_units else _largest_unit(model)
    samples = -(-config.batch * config.mesh.context // (replicas * shards))  # of a worker, in a step
    turns = -(-samples // config.micro_batch)
    working = activations(config, vocabulary, length, index, min(stage.count - index, turns))
    return Need(
        parameters=config.model.parameters(vocabulary),
        weights=4 * count // parts,
        gradients=4 * count // (parts if turns == 1 else tensor),  # summed over workers after the last micro-batch
        optimizer=states // parts,
        gathered=(2 if config.precision != "fp32" else 4) * unit // tensor * (2 if shards > 1 else 0),
        activations=working // (tensor * config.mesh.context),
        flops=flops.per_token(model, length),
        flops_full=flops.per_token(model, length, full_form=True),
    )


def _largest_unit(model: nn.Module) -> int:
    """Parameters of the largest part that FSDP gathers at once: a block, or all that stands outside of them."""
    from training.model.block import Block

    blocks = [sum(p.numel() for p in m.parameters()) for m in model.modules() if isinstance(m, Block)]
    outside = sum(parameter.numel() for parameter in model.parameters()) - sum(blocks)
    return max([outside, *blocks])


def measured(config: Pretrain, vocabulary: int, length: int) -> int:
    """Bytes by which this process grows at most over two real steps of one micro-batch (Linux)."""
    _two_steps(config.model_copy(update={"micro_batch": 1}), vocabulary, length)  # libraries take their own first
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = _resident("VmRSS:")
    _two_steps(config, vocabulary, length)
    return _resident("VmHWM:") - before


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) << 10


def _two_steps(config: Pretrain, vocabulary: int, length: int) -> None:
    from torch.nn import functional as F

    from training import optim, parallel
    from training.context import Context
    from training.model.assemble import assemble
    from training.model.decoder import init_weights

    context = Context(Recipe("", "", 0, {}), "memory", config)
    model = parallel.build(
        context, lambda: assemble(config.model, vocabulary), config, lambda made: init_weights(made, 0)
    )
    made = optim.make(model, config)
    sides = _sides(config, length)
    for _ in range(2):
        with parallel.autocast(context, config):
            loss = F.cross_entropy(model(*sides).flatten(0, 1).float(), sides[0].flatten())
        loss.backward()
        made.step()
        made.zero_grad(set_to_none=True)


def _aim(recipe: Recipe, config: Config) -> tuple[Pretrain, int, int]:
    """The step that is looked at, its batches counted in rows; its vocabulary; the longest rows' tokens."""
    target: Pretrain = recipe.step(config.target)
    vocabulary = config.vocabulary or recipe.step("tokenizer").vocabulary
    changed: dict[str, Any] = {}
    if target.start:
        from training import huggingface

        folder = huggingface.export_of(recipe.root, target.start, config.target)
        changed["model"], vocabulary = huggingface.read_config(folder)
    samples = recipe.step("tokens").sample_tokens
    length = max(width for _, width in target.widths(samples))
    parts = max(1, samples // length)
    changed |= {"batch": target.batch * parts, "micro_batch": target.micro_batch * parts}
    return target.model_copy(update=changed), vocabulary, length


def report(recipe: Recipe) -> str:
    """The lines that the command prints."""
    config: Config = recipe.step("memory")
    if recipe.kind(config.target) != "pretrain" or config.target not in recipe:
        raise UserError(f"{recipe.path}: memory.target = {config.target!r}: name a table of pretraining")
    target, vocabulary, length = _aim(recipe, config)
    found = need(target, vocabulary, config.gpus, length)
    rows = [("weights (fp32)", found.weights), ("gradients (fp32)", found.gradients)]
    rows += [(f"state of {target.optimizer}", found.optimizer), ("gathered weights", found.gathered)]
    rows += [(f"activations of {target.micro_batch} rows of {length} tokens", found.activations)]
    rows += [("in all", found.total)]
    whose = "them" if target.mesh.pipeline == 1 else "the fullest stage"
    lines = [f"{found.parameters:,} parameters, vocabulary {vocabulary:,}, on {config.gpus} GPUs; each of {whose}:"]
    lines += [f"  {name:<44}{size / (1 << 20):>12,.1f} MiB" for name, size in rows]
    speed = config.gpus * config.mfu * config.peak_tflops * 1e12 / found.flops
    lines += [f"FLOPs a token: {found.flops:.4g} (causal), {found.flops_full:.4g} (12 × form)"]
    lines += [f"expected: {speed:,.0f} tokens/s at {config.mfu:.0%} of {config.gpus} × {config.peak_tflops:g} TFLOP/s"]
    if config.check:
        alone = need(target.model_copy(update={"mesh": type(target.mesh).model_validate({})}), vocabulary, 1, length)
        grew = measured(target, vocabulary, length)
        lines += [f"one step here: {grew / (1 << 20):,.1f} MiB, {grew / alone.total:.2f} of the estimate for 1 worker"]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Print what the recipe's step needs."""
    sys.stdout.write(report(load(arguments, ("dataeng.", "training."))) + "\n")


if __name__ == "__main__":
    run(main)
