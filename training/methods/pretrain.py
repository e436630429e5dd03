"""Step `pretrain`: the next token of the published stream, from scratch or from a model that is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from dataeng import stage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, runtime
from dataeng.tokens import chat
from dataeng.tokens import tokenizer as tokenizer_step
from dataeng.tokens.shards import Layout, open_split
from training import families
from training.data.check import check_shards, check_start
from training.model.config import ModelConfig
from training.noise import Masking, SpanNoise
from training.settings import TrainerConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.context import Context
    from training.data.plan import Plan
    from training.data.stream import Rows
    from training.objectives import Noise
    from training.trainer import Batch, Step


log = logging.getLogger("millrace")


class Interval(BaseModel):
    """Weights of the sources from a global sample on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: int = Field(0, ge=0, description="The global sample from which on they hold")
    weights: dict[str, float] = Field(description="Weight of each source; those not named are left out")


class Config(TrainerConfig):
    """What to train on, and the model; the rest is every trainer's."""

    version: ClassVar[int] = 5
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    optimizer: Literal["adamw", "muon", "lamb", "sgd"] = Field(
        "muon", description="muon steps the matrices of blocks and AdamW the rest, under one learning rate"
    )
    data: str = Field("tokens", description="The stage whose token shards are read")
    model: ModelConfig = Field(ModelConfig.model_validate({}), description="The model's shape")
    start: str | None = Field(
        None,
        description="A training step, or a model's folder (a path or s3://), to go on from; its shape holds. "
        'The same as model = "…"',
    )
    export: bool = Field(
        True, validate_default=True, description="Whether to export for transformers; else in a format of our own"
    )
    max_shard_bytes: int = runtime(5_000_000_000, ge=1, description="Size of an export's files, in bytes")
    masking: Masking = Field(Masking.model_validate({}), description="What an encoder learns from")
    spans: SpanNoise = Field(SpanNoise.model_validate({}), description="What an encoder–decoder learns from")
    batch_schedule: list[tuple[int, int]] = Field(
        [], description="Batches other than `batch` from a step on: pairs of step and samples"
    )
    row_tokens: int | None = Field(
        None, ge=8, description="Tokens of a row (L), a divisor of sample_tokens; its default"
    )
    row_schedule: list[tuple[int, int]] = Field(
        [], description="Other row_tokens from a step on: pairs of step and tokens (arXiv:2108.06084)"
    )
    join_documents: bool = Field(
        False, description="Whether a row is one text; else tokens attend only to their own document's"
    )
    z_loss: float = Field(
        0.0, ge=0, description="Weight of the squared log of the softmax's sum (PaLM, arXiv:2204.02311: 1e-4)"
    )
    window: int = Field(256, ge=1, description="Neighbouring samples that are shuffled together and read at once")
    mixture: list[Interval] = Field(
        [], description="Sources by weight; by default each source in proportion to its size"
    )
    order: str | dict[str, str] = Field(
        "permuted", description="The order of windows, of all sources or by source: permuted, or as_published"
    )
    validation_samples: int = runtime(128, ge=1, description="Samples of the split `validation` that are looked at")

    @model_validator(mode="before")
    @classmethod
    def _starts_from_a_model(cls, values: Any) -> Any:
        """``model = "…"`` names where to start from, and not a shape."""
        if isinstance(values, dict) and isinstance(values.get("model"), str):
            return {key: value for key, value in values.items() if key != "model"} | {"start": values["model"]}
        return values

    @field_validator("export")
    @classmethod
    def _can_be_exported(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not info.data.get("start") and "model" in info.data:
            families.check_export(info.data["model"])
        return value

    @field_validator("order")
    @classmethod
    def _order(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for how in value.values() if isinstance(value, dict) else [value]:
            if how not in ("permuted", "as_published"):
                raise ValueError(f"{how!r}: must be permuted or as_published")
        return value

    @model_validator(mode="after")
    def _has_one_shape(self) -> Config:
        if self.start and self.model != ModelConfig.model_validate({}):
            raise ValueError("start: the shape is that of the model started from: leave [model] out")
        return self

    @model_validator(mode="after")
    def _schedules_ascend(self) -> Config:
        for name in ("batch_schedule", "row_schedule"):
            pairs = getattr(self, name)
            steps = [step for step, _ in pairs]
            if steps != sorted(set(steps)) or any(step < 1 or value < 1 for step, value in pairs):
                raise ValueError(f"{name}: pairs of (step, value) from step 1 on, steps ascending, not {pairs}")
        starts = [interval.start for interval in self.mixture]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(f"mixture: the intervals begin at 0 and ascend; these begin at {starts}")
        for interval in self.mixture:
            if min(interval.weights.values(), default=0.0) < 0 or not sum(interval.weights.values()) > 0:
                raise ValueError(f"mixture: weights are at least 0, one of them more: {interval.weights}")
        return self

    def widths(self, sample_tokens: int) -> list[tuple[int, int]]:
        """The tokens of a row from which step on, for samples of ``sample_tokens``."""
        return [(0, self.row_tokens or sample_tokens), *self.row_schedule]


def _layout(recipe: Recipe, name: str) -> tuple[str, Layout, dict[str, Any]]:
    config: Config = recipe.step(name)
    manifest = stage.need_manifest(recipe.root, config.data, name)
    return stage.folder_of(recipe.root, config.data), Layout.model_validate(manifest.details), manifest.details


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: the train split, how it is cut into samples, and the tokenizer."""
    config: Config = recipe.step(name)
    entries = stage.stage_inputs(recipe.root, config.data, name, "train")
    layout = _layout(recipe, name)[1]
    entries[0] |= layout.cut("train")
    if config.start:
        entries += _start_inputs(recipe, name, config.start)
    return [*entries, *stage.stage_inputs(recipe.root, layout.tokenizer, name)]


def _start_inputs(recipe: Recipe, name: str, start: str) -> list[dict[str, Any]]:
    from training import posttrain

    return posttrain.model_inputs(recipe, name, start)


def _architecture(recipe: Recipe, name: str, vocabulary: int) -> tuple[ModelConfig, int, str | None]:
    """The model's shape, its vocabulary, and the folder that its weights come from."""
    config: Config = recipe.step(name)
    if not config.start:
        return config.model, vocabulary, None
    from training import huggingface

    folder = huggingface.export_of(recipe.root, config.start, name)
    shape, own = huggingface.read_config(folder)
    return shape, max(own, vocabulary), folder


def _checked_shape(recipe: Recipe, name: str, layout: Layout, coming: Collection[str]) -> ModelConfig:
    """The model's shape, also where the step that it starts from is ``coming``; raises UserError where the weights
    that it starts from do not fit."""
    config: Config = recipe.step(name)
    if config.start and config.start in coming:
        from training import posttrain

        return posttrain.shape_of(recipe, name, config.start, coming)
    shape, _, begin = _architecture(recipe, name, layout.vocabulary)
    if begin:
        check_start(recipe.root, layout, begin, name)
    return shape


def _check_noise(recipe: Recipe, name: str, shape: ModelConfig, layout: Layout) -> None:
    """Raise UserError for what an encoder or encoder–decoder cannot be trained with."""
    config: Config = recipe.step(name)
    if config.mesh.tensor > 1 or config.mesh.context > 1:
        raise UserError(
            f"{recipe.path}: {name}.mesh: tensors and rows are split over workers for decoders only: "
            f"this is an {shape.kind}"
        )
    path = tokenizer_step.path_of(recipe.root, layout.tokenizer, name)
    tokenizer = tokenizer_step.load(path)
    if shape.kind == "encoder":
        chat.mask_id(tokenizer, path)
    else:
        widest = max(width for _, width in config.widths(layout.sample_tokens))
        chat.span_ids(tokenizer, path, config.spans.spans(widest))


def _in_order(recipe: Recipe, name: str, layout: Layout) -> frozenset[str]:
    """The sources that come in the order in which they were published; raises UserError for what makes no sense."""
    from training.data import order

    config: Config = recipe.step(name)
    weighed = {source for interval in config.mixture for source, weight in interval.weights.items() if weight}
    sizes = {source: s.samples for source, s in layout.splits.get("train", {}).items() if s.samples}
    drawn = {source: samples for source, samples in sizes.items() if not weighed or source in weighed}
    try:
        return order.in_order(config.order, drawn, config.window)
    except ValueError as error:
        raise UserError(f"{recipe.path}: {name}.{error}") from None


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError for what cannot train; ``coming`` steps are made before this one in the same run."""
    config: Config = recipe.step(name)
    where = f"{recipe.path}: {name}"
    if config.data in coming:
        return
    folder, layout = stage.folder_of(recipe.root, config.data), check_shards(recipe.root, config.data, name)
    shape = _checked_shape(recipe, name, layout, coming)
    if shape.kind != "decoder":
        _check_noise(recipe, name, shape, layout)
    for index, (_, row) in enumerate(config.widths(layout.sample_tokens)):
        key = f"{name}.row_schedule" if index else f"{name}.row_tokens"
        if row < 8 or layout.sample_tokens % row:
            raise UserError(
                f"{recipe.path}: {key} = {row}: must divide tokens.sample_tokens = {layout.sample_tokens}, and be "
                "at least 8"
            )
        if row > shape.context:
            raise UserError(
                f"{recipe.path}: {name}.model.context = {shape.context}: rows are {row} tokens long: "
                f"raise it, or set {key}"
            )
        config.mesh.check(shape, row, where)
    known = {source for source, s in layout.splits.get("train", {}).items() if s.samples}
    unknown = {source for interval in config.mixture for source in interval.weights} - known
    if unknown:
        raise UserError(
            f"{recipe.path}: {name}.mixture: there is no source {sorted(unknown)[0]!r} with a whole sample "
            f"in {folder}; known: {', '.join(sorted(known))}"
        )
    manifest = stage.need_manifest(recipe.root, config.data, name)
    if _in_order(recipe, name, layout) and not any("order" in entry for entry in manifest.inputs):
        log.info("%s: the shards in %s do not say that they have an order: they come as they stand", name, folder)


def plan_of(context: Context) -> Plan:
    """Which samples this rank takes, and where they stand."""
    from training.data.order import ByStep, Mixture, oversampled
    from training.data.order import Interval as Weights
    from training.data.plan import Plan

    config: Config = context.config
    folder, layout, details = _layout(context.recipe, context.name)
    streams = open_split(folder, details, "train")
    sizes = {source: float(stream.source.samples) for source, stream in streams.items()}
    weights = [Weights(item.start, item.weights) for item in config.mixture] or [Weights(0, sizes)]
    for source, by in {name: by for item in weights for name, by in oversampled(item.weights).items()}.items():
        context.log("mixture: %r comes %.1f times as often as its tiny weight says", source, by)
    return Plan(
        streams,
        Mixture(weights),
        context.seed,
        config.window,
        layout.sample_tokens,
        ByStep([(0, config.batch), *config.batch_schedule]),
        context.rank,
        context.world,
        _in_order(context.recipe, context.name, layout),
    )


def loss(
    model: nn.Module, batch: Batch, z_loss: float = 0.0, compiled: bool = False
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Cross-entropy summed over the targets that count, and their number; with ``z_loss`` its share is added."""
    from training.likelihood import IGNORED, cross_entropy, logits_of

    total, z = cross_entropy(logits_of(model, batch), batch["targets"], z_loss > 0, compiled)
    count = (batch["targets"] != IGNORED).sum()
    return (total, count, {}) if z is None else (total + z_loss * z, count, {"cross_entropy": total, "z_square": z})


def loss_of(config: TrainerConfig) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor, dict[str, Tensor]]]:
    """The loss that a step's settings ask for."""
    return partial(loss, z_loss=getattr(config, "z_loss", 0.0), compiled=bool(config.compile))


def rows_of(recipe: Recipe, layout: Layout, micro_batch: int, join_documents: bool, wanted_by: str) -> Rows:
    """How samples of a stage of tokens become rows."""
    from training.data.stream import Rows

    path = tokenizer_step.path_of(recipe.root, layout.tokenizer, wanted_by)
    end = None if join_documents else chat.token_id(tokenizer_step.load(path), chat.END_OF_TEXT)
    return Rows(layout.sample_tokens, micro_batch, end)


def _filler(context: Context, folder: str | None, vocabulary: int) -> Callable[[nn.Module], None]:
    """What sets the weights: those of a folder, read tensor by tensor, or the first ones."""
    from training import huggingface, parallel
    from training.model.decoder import init_weights
    from training.weights import Grown

    def fill(model: nn.Module) -> None:
        if folder:
            parallel.load_full(model, Grown(huggingface.state_of(folder), vocabulary))
        else:
            init_weights(model, context.seed)

    return fill


def _noise(context: Context, shape: ModelConfig, tokenizer_path: str, widest: int) -> Noise | None:
    """What is done to the rows of an encoder or encoder–decoder, of at most ``widest`` tokens; None for a decoder."""
    from training.objectives import Masker, Spans

    config: Config = context.config
    if shape.kind == "decoder":
        return None
    tokenizer = tokenizer_step.load(tokenizer_path)
    if shape.kind == "encoder":
        return Masker(config.masking, tokenizer, tokenizer_path, context.seed)
    return Spans(config.spans, tokenizer, tokenizer_path, context.seed, widest)


def run(context: Context) -> None:
    """Train, export and publish ROOT/NAME, or find it done."""
    from training import huggingface, parallel, pipeline
    from training.data import stream
    from training.data.order import ByStep
    from training.model.assemble import assemble
    from training.trainer import fit
    from training.validation import validator

    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    folder, layout, details = _layout(context.recipe, context.name)
    path = tokenizer_step.path_of(context.recipe.root, layout.tokenizer, context.name)
    rows = rows_of(context.recipe, layout, config.micro_batch, config.join_documents, context.name)
    widths = ByStep(config.widths(layout.sample_tokens))
    shape, vocabulary, begin = _architecture(context.recipe, context.name, layout.vocabulary)
    model = parallel.build(context, lambda: assemble(shape, vocabulary), config, _filler(context, begin, vocabulary))
    context.log(
        "%.2fM parameters, %d workers, %s, %d steps of %d samples of %d tokens",
        shape.parameters(vocabulary) / 1e6,
        context.processes,
        config.precision,
        config.max_steps,
        config.batch,
        layout.sample_tokens,
    )
    pipeline.say(context, -(-stream.fullest(config.batch, context.world) // config.micro_batch))
    plan = plan_of(context)
    split = open_split(folder, details, "validation")
    held_back = stream.validation_rows(context, split, rows, max(widths.values), config.validation_samples)
    noise = _noise(context, shape, path, max(widths.values))
    if noise:
        held_back = noise.held_back(held_back)

    def steps(position: int) -> Iterator[Step]:
        plain = stream.batches(context, plan, rows, widths, position, config.max_steps)
        return noise.steps(plain, plan, widths) if noise else plain

    result = fit(context, model, steps, loss_of(config), config, validator(context, held_back, list(split)))
    tokens = result.position * layout.sample_tokens
    huggingface.publish(
        context,
        attempt,
        model,
        shape,
        path,
        result,
        {"tokens": tokens, "parameters": shape.parameters(vocabulary)},
        shard_bytes=config.max_shard_bytes,
    )
