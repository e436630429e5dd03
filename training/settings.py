"""Settings that every training method shares. No torch here: drivers check recipes without it."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dataeng.cli import UserError
from dataeng.recipe import Table, runtime
from training.model.config import ModelConfig

Beta = Annotated[float, Field(ge=0, lt=1)]  # the share of a moment that stays


class Mesh(Table):
    """How workers split a model and its batches: pipeline × replicate × shard × context × tensor of them."""

    pipeline: int = Field(1, ge=1, description="Stages of consecutive blocks, that hand micro-batches on (1F1B)")
    replicate: int = Field(1, ge=1, description="Copies of the sharded model (HSDP), such as one a node")
    shard: int | None = Field(None, ge=1, description="Workers over which FSDP shards; by default all that are left")
    context: int = Field(1, ge=1, description="Workers that split a row's tokens")
    tensor: int = Field(1, ge=1, description="Workers that split heads, inner layers and the vocabulary")

    def shape(self, workers: int, where: str = "mesh") -> tuple[int, int, int]:
        """Replicas, shards (each part of a row is one) and tensor parts of a stage; raises UserError without a fit."""
        whole = self.pipeline * self.replicate * self.context * self.tensor
        sharded = self.shard or max(workers // whole, 1)
        if whole * sharded != workers:
            raise UserError(
                f"{where}: mesh.pipeline {self.pipeline} x replicate {self.replicate} x shard {self.shard or 'rest'} "
                f"x context {self.context} x tensor {self.tensor} do not multiply to {workers} workers: "
                f"set train.workers or [{where}.mesh]"
            )
        return self.replicate, sharded * self.context, self.tensor

    def check(self, model: ModelConfig, row_tokens: int, where: str) -> None:
        """Raise UserError where a model or rows of so many tokens cannot be split so."""
        if self.pipeline > 1 and model.kind != "decoder":
            raise UserError(f"{where}.mesh.pipeline = {self.pipeline}: stages are of decoders: this is an {model.kind}")
        if self.pipeline > model.layers:
            raise UserError(
                f"{where}.mesh.pipeline = {self.pipeline}: at most one stage for each of the model's layers = "
                f"{model.layers}"
            )
        parts = self.tensor
        sizes = {"heads": model.heads, "kv_heads": model.key_heads, "ffn": model.inner}
        if parts > 1 and (wrong := [name for name, size in sizes.items() if size % parts]):
            raise UserError(f"{where}.mesh.tensor = {parts}: must divide the model's {wrong[0]} = {sizes[wrong[0]]}")
        if parts > 1 and model.positions != "rotary":
            raise UserError(f"{where}.mesh.tensor = {parts}: models with {model.positions} positions are not split")
        pieces = 2 * self.context * parts if self.context > 1 else parts
        if row_tokens % pieces:
            raise UserError(
                f"{where}.mesh: rows of {row_tokens} tokens cannot be cut into {pieces} pieces (mesh.tensor, and "
                "twice mesh.context): set row_tokens"
            )


class TrainerConfig(Table):
    """Optimiser, schedule, precision and intervals; a method's ``Config`` adds its own fields."""

    max_steps: int = Field(100, ge=1, description="Optimiser steps in all")
    batch: int = Field(16, ge=1, description="Global batch of one step, in samples (rows, examples, pairs, prompts)")
    micro_batch: int = runtime(8, ge=1, description="Samples that a worker takes at once")
    learning_rate: float = Field(1e-3, gt=0, description="Peak learning rate")
    optimizer: Literal["adamw", "muon", "lamb", "sgd"] = Field(
        "adamw", description="muon steps the matrices of blocks and AdamW the rest, under one learning rate"
    )
    schedule: Literal["cosine", "linear", "wsd", "inverse_sqrt", "constant"] = Field(
        "cosine", description="After the warm-up; wsd holds the peak, then falls linearly (arXiv:2404.06395)"
    )
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up")
    decay_share: float = Field(0.2, gt=0, le=1, description="Share of all steps in which wsd falls")
    minimum_share: float = Field(0.1, ge=0, le=1, description="Last learning rate, as a share of the peak")
    layer_decay: float = Field(1.0, gt=0, le=1, description="Factor of the rate for each layer further from the head")
    weight_decay: float = Field(0.1, ge=0, description="Decay apart from the loss (arXiv:1711.05101), of matrices only")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's and LAMB's moments; sgd's momentum is the first")
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum (Jordan et al. 2024)")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's and LAMB's epsilon")
    clip: float = Field(1.0, ge=0, description="Bound of the gradient's global norm; 0 for none")
    precision: Literal["fp32", "bf16", "fp16", "float8"] = Field(
        "bf16",
        description="Of matrix products; weights and sums stay fp32, fp16 scales the loss, float8 (torchao) is for "
        "GPUs that have it",
    )
    mesh: Mesh = runtime(Mesh.model_validate({}), description="How the workers split the model and its batches")
    recompute: Literal["none", "selective", "full"] = runtime(
        "none", description="Activations computed again in the backward pass: all but matrix products, or a block's all"
    )
    compile: bool | Literal["model"] = runtime(
        False,
        description="Compile blocks, and pretraining's loss; `model`: one graph where one worker has it whole, a bit "
        "faster, and longer to compile the more layers there are",
    )
    checkpoint_every: int = runtime(100, ge=1, description="Steps between checkpoints")
    keep: int = runtime(2, ge=1, description="The last checkpoints kept; the next two rules keep others besides")
    keep_every: int = runtime(0, ge=0, description="Checkpoints of every so many steps are kept for good; 0 for none")
    keep_best: int = runtime(0, ge=0, description="Checkpoints of least validation loss that are kept")
    validate_every: int = runtime(0, ge=0, description="Steps between validations; 0 for only the last")
    log_every: int = runtime(10, ge=1, description="Steps between progress lines")
    profile: tuple[int, int] | None = runtime(
        None,
        description="First and last step that PyTorch's profiler follows; its Chrome traces go to ROOT/NAME/profile",
    )
    nonfinite_limit: int = runtime(10, ge=0, description="Steps with a non-finite gradient before the run stops")

    @model_validator(mode="after")
    def _warms_up(self) -> TrainerConfig:
        if self.profile and not 1 <= self.profile[0] <= self.profile[1]:
            raise ValueError(f"profile {list(self.profile)} must be a first and a last step, counted from 1")
        if self.warmup >= self.max_steps:
            raise ValueError(f"warmup {self.warmup} must be less than max_steps {self.max_steps}")
        return self

    @property
    def asks_to_validate(self) -> str:
        """The setting that wants a validation besides the last one; empty for none."""
        return "validate_every" if self.validate_every else "keep_best" if self.keep_best else ""

    def rate(self, step: int) -> float:
        """The learning rate of ``step``, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / (self.warmup + 1)
        floor, last = self.minimum_share, max(self.max_steps, 1)
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "inverse_sqrt":  # arXiv:1706.03762
            return self.learning_rate * math.sqrt(max(self.warmup, 1) / (step + 1))
        begin = self.warmup if self.schedule != "wsd" else max(self.warmup, last - round(self.decay_share * last))
        done = min(max((step - begin) / max(last - begin, 1), 0.0), 1.0)
        share = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return self.learning_rate * (floor + (1 - floor) * share)

    def extendable_until(self) -> float:
        """The step up to which the rates do not depend on ``max_steps``: so far a longer run may go on from."""
        if self.schedule in ("constant", "inverse_sqrt"):
            return math.inf
        if self.schedule == "wsd":
            return max(self.warmup, self.max_steps - round(self.decay_share * self.max_steps))
        return self.warmup
