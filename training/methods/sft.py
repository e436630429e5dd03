"""Step `sft`: supervised fine-tuning on chats, loss on answers only, all weights or adapters.

A decoder learns whole chats, packed into rows; an encoder–decoder reads what came before an answer, and says it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import safetensors.torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dataeng import stage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, runtime
from dataeng.tokens import chat
from training import families, huggingface, lora, parallel, posttrain, validation
from training.context import Context, read_ahead
from training.data.examples import Example, collate, encode_examples, messages_of, order, pack
from training.data.sided import Sided, collate_sides, encode_sides, pack_sides
from training.likelihood import logits_of, masked_sum, token_log_probs
from training.lora import Lora
from training.settings import TrainerConfig
from training.trainer import Batch, Result, Step, fit
from training.weights import Gathered


class Config(TrainerConfig):
    """What to fine-tune, on what; ``batch`` counts examples, ``micro_batch`` packed rows."""

    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    model: str = Field("pretrain", description="The training step whose model is taken")
    data: str | list[str] = runtime(
        "tasks", description="A stage with a table `train`, or JSONL files; their contents enter the fingerprint"
    )
    batch: int = Field(32, ge=1, description="Examples of one step")
    micro_batch: int = runtime(16, ge=1, description="Packed rows that a worker takes at once")
    row_tokens: int | None = runtime(
        None,
        ge=8,
        description="Width of a packed row (of each side, where there are two), in tokens; by default twice the "
        "longest example, in 64s",
    )
    lora: Lora | None = Field(None, description="Train adapters of that shape instead of all weights")
    held_back: float = Field(0.0, ge=0, lt=1, description="Share of the examples, the last, that is validated on")

    @model_validator(mode="after")
    def _validated_on_something(self) -> Config:
        if (asked := self.asks_to_validate) and not self.held_back:
            raise ValueError(f"{asked}: no examples are held back to validate on: set held_back = 0.05, say")
        return self


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: the model and the examples."""
    config: Config = recipe.step(name)
    return [
        *posttrain.model_inputs(recipe, name, config.model),
        *posttrain.data_inputs(recipe, name, config.data, ["train"]),
    ]


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError for what cannot train; ``coming`` steps are made before this one in the same run."""
    config: Config = recipe.step(name)
    posttrain.check_inputs(recipe, name, coming, [config.model], config.data, ["train"], posttrain.ANSWERING)


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Cross-entropy summed over the answers' tokens, and their number."""
    logits_RLV = logits_of(model, batch)
    total = -masked_sum(token_log_probs(logits_RLV, batch["targets"]), batch["mask"])
    right = (logits_RLV.argmax(-1) == batch["targets"]) & batch["mask"]
    return total, batch["mask"].sum(), {"token_accuracy": right.sum()}


def row_width(config: Config, lengths: Sequence[int], context: int) -> int:
    """The width of packed rows: as configured, else twice the longest example in multiples of 64.

    Raises UserError where an example does not fit.
    """
    longest = max(lengths)
    width = config.row_tokens or min(context, -(-2 * longest // 64) * 64)
    if width < longest:
        raise UserError(f"row_tokens = {width}: an example has {longest} tokens: raise it")
    return width


def split(name: str, examples: Sequence[Any], held_back: float) -> tuple[Sequence[Any], Sequence[Any]]:
    """Examples to train on, and the last ones, held back; raises UserError where none are left to train on."""
    if not held_back:
        return examples, []
    cut = len(examples) - max(1, round(len(examples) * held_back))
    if cut < 1:
        raise UserError(f"{name}.held_back = {held_back}: of {len(examples)} examples none are left to train on")
    return examples[:cut], examples[cut:]


Make = Callable[[Sequence[Any], int], Step]  # a step of the examples of a global batch, and the position after it


def _step(
    context: Context,
    rows: Sequence[Sequence[int]],
    weight: int,
    micro_batch: int,
    position: int,
    together: Callable[[Sequence[Sequence[int]], int], Batch],
) -> Step:
    """Packed rows cut by rank into micro-batches of equal height; ``together`` makes a batch of some of them."""
    mine = context.share(len(rows))
    most = -(-len(rows) // context.world)
    turns = -(-most // micro_batch)
    height = -(-most // turns)
    parts = [mine[at * height : (at + 1) * height] for at in range(turns)]
    return Step([together([rows[i] for i in part], height) for part in parts], float(weight), position)


def global_step(
    context: Context, examples: Sequence[Example], width: int, pad: int, micro_batch: int, position: int
) -> Step:
    """One step on a global batch: packed as a whole, then cut by rank into micro-batches of equal height."""
    rows = pack([len(example.ids) for example in examples], width)
    weight = sum(sum(example.mask[1:]) for example in examples)
    return _step(
        context, rows, weight, micro_batch, position, lambda some, height: collate(examples, some, width, pad, height)
    )


def sided_step(
    context: Context, examples: Sequence[Sided], widths: tuple[int, int], pad: int, micro_batch: int, position: int
) -> Step:
    """The same for examples of two sides."""
    rows = pack_sides(examples, widths)
    weight = sum(len(example.target) for example in examples)
    return _step(
        context,
        rows,
        weight,
        micro_batch,
        position,
        lambda some, height: collate_sides(examples, some, widths, pad, height),
    )


def batches(context: Context, config: Config, examples: Sequence[Any], make: Make, position: int) -> Iterator[Step]:
    """The steps from a position on, made ahead of their use."""

    def at(begin: int) -> Step:
        indices = order(context.seed, context.title, begin, config.batch, len(examples))
        return make([examples[i] for i in indices], begin + config.batch)

    yield from read_ahead(at, range(position, config.max_steps * config.batch, config.batch))


def _examples(context: Context, begin: posttrain.Start) -> tuple[Sequence[Any], int, Make]:
    """The examples, how many were too long, and what makes a step of some; for decoders and encoder–decoders."""
    config: Config = context.config
    longest, pad, micro = begin.architecture.context, chat.token_id(begin.tokenizer, chat.PAD), config.micro_batch
    chats = map(messages_of, posttrain.data_rows(context.recipe, context.name, config.data, "train"))
    if begin.architecture.kind == "decoder":
        examples, longer = encode_examples(begin.tokenizer, chats, longest)
        width = row_width(config, [len(example.ids) for example in examples], longest)
        context.log("%d examples, %d longer than the context left out, rows of %d tokens", len(examples), longer, width)
        return examples, longer, lambda some, position: global_step(context, some, width, pad, micro, position)
    sided, longer = encode_sides(begin.tokenizer, chats, longest)
    sides = zip(*sided, strict=True)
    read, said = (row_width(config, [len(ids) for ids in side], longest) for side in sides)
    context.log("%d examples, %d longer than the context left out, rows of %d and %d", len(sided), longer, read, said)
    return sided, longer, lambda some, position: sided_step(context, some, (read, said), pad, micro, position)


def _model(context: Context, config: Config, begin: posttrain.Start) -> nn.Module:
    adapters = config.lora
    if adapters is None:
        return posttrain.filled(context, begin.model, config, begin.state)

    def fill(model: nn.Module) -> None:
        parallel.load_full(model, lora.with_adapters(begin.state, model, context.seed))

    return parallel.build(context, lambda: lora.add_adapters(begin.model(), adapters, begin.added > 0), config, fill)


def run(context: Context) -> None:
    """Fine-tune, export and publish ROOT/NAME, or find it done."""
    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    begin = posttrain.start(context, config.model)
    examples, longer, make = _examples(context, begin)
    model = _model(context, config, begin)
    taught, others = split(context.name, examples, config.held_back)
    parts = (others[at : at + config.batch] for at in range(0, len(others), config.batch))
    held_back = [batch for part in parts for batch in make(part, 0).micro]

    def validate(made: nn.Module) -> dict[str, float]:
        return validation.of_loss(context, made, held_back, loss, "token_accuracy")

    def steps(position: int) -> Iterator[Step]:
        return batches(context, config, taught, make, position)

    result = fit(context, model, steps, loss, config, validate if others else None)
    details = {"examples": len(taught), "held_back": len(others), "longer": longer}
    _publish(context, attempt, model, begin, result, details)


def _publish(
    context: Context,
    attempt: stage.Attempt,
    model: nn.Module,
    begin: posttrain.Start,
    result: Result,
    details: dict[str, Any],
) -> None:
    """Publish the model; of adapters the merged model, and the adapters beside it."""
    adapters: Lora | None = context.config.lora
    state = Gathered(model)
    if adapters is None:
        huggingface.publish_state(context, attempt, state, begin.architecture, begin.tokenizer_path, result, details)
        return
    with tempfile.TemporaryDirectory() as temporary:
        weights, about = Path(temporary, "adapter_model.safetensors"), Path(temporary, "adapter_config.json")
        base = context.config.model
        base = base if huggingface.is_folder(base) else f"../../../{base}/export"
        grown = begin.added > 0
        own = {name: value.contiguous() for name, value in lora.adapter_state(state, grown).items()}
        whole = [name for name in lora.VOCABULARY if grown and f"{name}.weight" in state]
        safetensors.torch.save_file(own, weights, metadata={"format": "pt"})
        about.write_text(json.dumps(lora.adapter_config(adapters, base, whole), indent=2))
        # Elsewhere queries, keys and values are one matrix, which PEFT's files cannot name the parts of.
        named_alike = families.family_of(begin.architecture) in (families.LLAMA, families.QWEN3)
        more = {f"adapter/{file.name}": str(file) for file in (weights, about)} if named_alike else {}
        full = lora.Merged(state, adapters)
        huggingface.publish_state(
            context, attempt, full, begin.architecture, begin.tokenizer_path, result, details, more
        )
