"""The training loop. It knows no method: a model, batches and a loss come in.

The weight of a whole global batch is known before its first backward; losses are summed and divided
by it, so that cutting a batch into micro-batches or over workers changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dataeng.cli import Failure, Stopped
from training import flops, optim, parallel, pipeline
from training.checkpoint import Checkpoints
from training.context import Context
from training.likelihood import IGNORED, logits_of
from training.metrics import Metrics
from training.scaling import LossScale
from training.settings import TrainerConfig
from training.stop import Stop
from training.tracing import Trace
from training.watch import Watch

Batch = dict[str, Tensor]
# loss(model, micro_batch) -> (weighted sum to minimise, its weight, weighted sums to log). The weight's
# unit (tokens, pairs, sequences) is the method's; logged sums are divided by the global weight.
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor | float, dict[str, Tensor]]]


class TrainingFailed(Failure):
    """Training cannot go on: too many non-finite steps, or a batch without weight."""


@dataclass
class Step:
    """One optimiser step: this rank's micro-batches, of which every rank has the same number."""

    micro: list[Batch]
    weight: float  # of the global batch, over all ranks and micro-batches
    position: int  # global samples (or rollouts) used up once this step is done
    bound: bool = True  # whether a checkpoint may follow: the last inner update of a rollout batch
    metrics: dict[str, float] = field(default_factory=dict)  # global values to log with the step


# batches(position) yields the steps from a position on. It may generate on demand: the next step is
# asked for only after the one before is done. It may end early; all ranks' end together.
_ROWS = "rows"  # summed with what a loss reports
Batches = Callable[[int], Iterator[Step]]
Validate = Callable[[nn.Module], dict[str, float]]


@dataclass
class Result:
    """What came of ``fit``: the last step, where it resumed, and the last values of all metrics."""

    step: int
    position: int
    resumed_from: int
    metrics: dict[str, float]
    skipped: int
    seconds: float


def fit(
    context: Context,
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    settings: TrainerConfig,
    validate: Validate | None = None,
) -> Result:
    """Train ``model`` (laid out by ``parallel.build``) for ``settings.max_steps`` steps, resuming by itself.

    Raises TrainingFailed, and Stopped after a checkpoint where it was asked to end. All ranks call it with the
    same settings.
    """
    run = _Run(context, model, loss, settings)
    with run.watch, run.stop:
        return _fit(run, batches, validate)


def _fit(run: _Run, batches: Batches, validate: Validate | None) -> Result:
    context, settings = run.context, run.settings
    begun = time.monotonic()
    resumed = run.restore()
    if run.meter.peak:
        context.log("MFU: FLOPs a worker and second / %.4g; a token costs %s", run.meter.peak, flops.FORMULA)
    with Metrics(context, resumed, settings.max_steps, run.begun_as) as metrics:
        steps = batches(run.position)
        while run.step < settings.max_steps:
            if (step := run.next(steps)) is None:  # nothing is left to learn: the method has said why
                break
            run.trace.before(run.step + 1)
            row = run.update(step)
            run.trace.after(run.step, settings.max_steps)
            scored = settings.keep_best > 0 and run.due  # a checkpoint is to be ranked
            if validate and (scored or _is_due(run.step, settings.validate_every, settings.max_steps)):
                row |= run.validated(validate)
            metrics.write(row)
            if context.report:
                context.report(row)
            if run.step == 1 or run.step - resumed == 1 or _is_due(run.step, settings.log_every, settings.max_steps):
                context.log("%s", _progress(row, settings.max_steps))
            run.save_if_due(metrics)
            run.end_if_asked(metrics)
        run.finish()
    return Result(run.step, run.position, resumed, run.last, run.skipped, time.monotonic() - begun)


def _is_due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


def _progress(row: dict[str, Any], last: int) -> str:
    parts = [
        f"step {row['step']}/{last}",
        f"loss {row['loss']:.4f}",
        f"rate {row['rate']:.2e}",
        f"norm {row['norm']:.2f}",
        f"{row['per_second']:,.0f}/s",
        *([f"MFU {row['mfu']:.1%}"] if "mfu" in row else []),
        f"data wait {row['data_wait'] / (row['data_wait'] + row['seconds']):.1%}",
    ]
    if "validation_loss" in row:
        parts.append(f"validation {row['validation_loss']:.4f}")
    return "  ".join(parts)


class _Run:
    """The state of one run: model, optimiser, step and position."""

    def __init__(self, context: Context, model: nn.Module, loss: Loss, settings: TrainerConfig) -> None:
        self.context, self.model, self.loss, self.settings = context, model, loss, settings
        self.watch = Watch(context, context.recipe.step("train").collective_timeout_seconds)
        self.stop, self.stopping, self.leaving = Stop(), False, False
        self.optimizer, self.scale = optim.make(model, settings), LossScale(settings.precision)
        self.meter = flops.Meter(model, context.device, settings.precision, context.processes)
        self.saver, self.trace = Checkpoints(context, settings), Trace(context, settings.profile)
        self.step = self.position = self.skipped = 0
        self.last: dict[str, float] = {}
        self.due, self.begun_as = False, settings.max_steps
        self.waited = self.stalled = self.worked = 0.0  # seconds: for data, in the saver, in updates
        self.wait = self.stall = 0.0  # seconds before this step: for its data, in the saver after the one before
        self.saved, self.warned, self._bound = -1, False, True

    def restore(self) -> int:
        """Load the newest whole checkpoint, if there is one; the step it was made after comes back."""
        facts = self.saver.restore(self.model, self.optimizer)
        if facts:
            self.step, self.position, self.skipped = facts["step"], facts["position"], facts["skipped"]
            self.last, self.begun_as = facts["metrics"], facts["max_steps"]
            self.scale.load(facts.get("scale"))
            self.context.log("resumed at step %d, sample %d", self.step, self.position)
        return self.step

    def next(self, steps: Iterator[Step]) -> Step | None:
        """The next step's batch, the wait for it measured; None where there is no more."""
        self.watch.at("data", self.step)
        begun = time.monotonic()
        step = next(steps, None)
        self.wait = time.monotonic() - begun
        self.waited += self.wait
        return step

    def update(self, step: Step) -> dict[str, Any]:
        """One optimiser step; the row of metrics that it leaves."""
        begun = time.monotonic()
        if not step.weight > 0:
            raise TrainingFailed(
                f"{self.context.name}: step {self.step}: nothing in the batch counts (weight "
                f"{step.weight}): are all labels masked?"
            )
        rate = self.settings.rate(self.step)
        optim.set_rate(self.optimizer, rate)
        torch.manual_seed(hash((self.context.seed, self.step, self.context.process)) & 0x7FFFFFFF)  # for dropout
        sums = self._backward(step)
        rows = sums.pop(_ROWS) * step.weight
        self.watch.at("optimizer", self.step)
        self.scale.unscale(self.model)
        norm = optim.clip(self.model, self.settings.clip)
        if math.isfinite(norm):
            self.optimizer.step()
        if not self.scale.after(math.isfinite(norm)):
            self._skip()
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.position, self.due = self.step + 1, step.position, self.due or self._is_save_due(self.step + 1)
        self.last = sums | step.metrics
        seconds = time.monotonic() - begun
        self.worked += seconds
        row = {"step": self.step, "position": self.position, "rate": rate, "norm": norm, "weight": step.weight}
        self._bound = step.bound
        times = {"seconds": seconds, "data_wait": self.wait, "checkpoint_stall": self.stall}
        times |= {"per_second": step.weight / seconds}
        self.stall = 0.0
        sides = (step.micro[0].get(side) for side in ("tokens", "answers")) if step.micro else ()
        speed = self.meter.row(rows, sum(side.shape[1] for side in sides if side is not None), seconds)
        return row | self.last | {"skipped": self.skipped} | times | speed

    def _backward(self, step: Step) -> dict[str, float]:
        """Gradients of the global batch's mean loss; the logged means come back."""
        self.model.train()
        totals: dict[str, Tensor] = {}
        ends = self.context.blocks is None or self.context.blocks.last

        def forward(batch: Batch) -> Tensor:
            self.watch.at("forward", self.step)
            with parallel.autocast(self.context, self.settings):
                if not ends:
                    return logits_of(self.model, batch)  # for the next stage
                total, weight, logged = self.loss(self.model, batch)
            self.watch.at("backward", self.step)
            counted = {"loss": total, "weight": torch.as_tensor(weight), _ROWS: self._rows(batch)}
            for key, value in (counted | logged).items():
                value = value.detach().double().to(self.context.device)
                totals[key] = totals[key] + value if key in totals else value
            return total * (self.scale.value * self.context.averaged / step.weight)

        pipeline.accumulate(self.context, self.model, step.micro, forward)
        numbers = {name: float(value) for name, value in totals.items()}
        sums = self._reduced(pipeline.told(self.context, self.model, numbers))
        weight = sums.pop("weight")
        if not math.isclose(weight, step.weight, rel_tol=1e-4):
            raise TrainingFailed(
                f"{self.context.name}: step {self.step}: the batch was said to weigh {step.weight}, its loss {weight}"
            )
        return {name: value / step.weight for name, value in sums.items()}

    def _rows(self, batch: Batch) -> Tensor:
        """Rows of a (placed) micro-batch in which something counts; of a part of rows that share of them."""
        if "mask" not in batch and "targets" not in batch:
            return torch.as_tensor(float(len(next(iter(batch.values()), ()))))
        counts = batch["mask"] if "mask" in batch else batch["targets"] != IGNORED
        return counts.flatten(1).any(1).sum() / (self.context.spread.parts if self.context.spread else 1)

    def _reduced(self, numbers: dict[str, float]) -> dict[str, float]:
        """Sums over the ranks; with them goes whether any rank is asked to end, or it is time to ask the engine."""
        self.watch.at("reduce", self.step)
        asked = [float(self.stop.asked), float(self.context.notice is not None and self.stop.look_due())]
        names = sorted(numbers)
        *sums, stopping, look = self.context.total([*(numbers[name] for name in names), *asked])
        self.stopping = self.stopping or stopping > 0
        if look > 0 and self.context.notice is not None:
            wish = self.context.notice()
            self.stopping, self.leaving = self.stopping or wish == "stop", wish == "save"
        return dict(zip(names, sums, strict=True))

    def _skip(self) -> None:
        self.skipped += 1
        self.context.log("step %d: the gradient is not finite; step skipped (%d so far)", self.step, self.skipped)
        if self.skipped > self.settings.nonfinite_limit:
            raise TrainingFailed(
                f"{self.context.name}: {self.skipped} steps had a gradient that is not finite "
                f"(nonfinite_limit = {self.settings.nonfinite_limit}): lower the learning rate"
            )

    def validated(self, validate: Validate) -> dict[str, float]:
        """The validation's metrics, without gradients or dropout."""
        self.watch.at("validate", self.step)
        self.model.eval()
        with torch.no_grad(), parallel.autocast(self.context, self.settings):
            found = validate(self.model)
        self.model.train()
        self.last |= found
        return found

    def _is_save_due(self, step: int) -> bool:
        return _is_due(step, self.settings.checkpoint_every, self.settings.max_steps)

    def save_if_due(self, metrics: Metrics) -> None:
        """Start a checkpoint where one is due and the step ends a unit of position."""
        if self.due and (self._bound or self.step == self.settings.max_steps):
            self._save(metrics)

    def _save(self, metrics: Metrics) -> None:
        self.watch.at("save", self.step)
        begun = time.monotonic()
        metrics.flush()
        facts = {"step": self.step, "position": self.position, "skipped": self.skipped, "metrics": self.last}
        facts |= {"scale": self.scale.state(), "bound": self._bound}
        self.saver.save(self.model, self.optimizer, facts)
        self.due, self.saved = False, self.step
        self.stall = time.monotonic() - begun
        self.stalled += self.stall

    def end_if_asked(self, metrics: Metrics) -> None:
        """Save where a machine will be taken away; raise Stopped, once saved, where all is to end."""
        if not self._bound or self.step == self.settings.max_steps or not (self.stopping or self.leaving):
            return
        if self.saved != self.step and (self.stopping or not self.warned):
            self._save(metrics)
            self.saver.join()
            self.context.log("saved at step %d, since it was asked to leave", self.step)
        self.warned = self.warned or self.leaving
        if self.stopping:
            self.saver.close()
            raise Stopped(f"{self.context.name}: stopped by SIGTERM at step {self.step}, saved; run it again to go on")

    def finish(self) -> None:
        """Wait for the last save; say what was waited for."""
        self.watch.at("save", self.step)
        begun = time.monotonic()
        self.saver.close()
        self.stalled += time.monotonic() - begun
        whole = max(self.waited + self.worked + self.stalled, 1e-9)
        self.context.log(
            "%.1f s of updates, %.1f s (%.2f %%) waiting for data, %.1f s (%.2f %%) for checkpoints",
            *(self.worked, self.waited, 100 * self.waited / whole, self.stalled, 100 * self.stalled / whole),
        )
