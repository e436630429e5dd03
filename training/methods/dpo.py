"""Step `dpo`: direct preference optimisation (arXiv:2305.18290), on comparisons given or drawn before training."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataeng.recipe import Recipe
from dataeng.tokens import chat
from training import comparisons, huggingface, posttrain, validation
from training.comparisons import Drawn
from training.context import Context
from training.likelihood import only, token_log_probs
from training.methods import reward
from training.methods.reward import PairConfig, Pairs
from training.rollouts import encode_prompts
from training.trainer import Batch, Loss, Step, fit

# B sequences (each pair's chosen one, then its rejected one), L tokens


class Config(PairConfig):
    """How far from which reference to go; the rest is every method's on comparisons."""

    version: ClassVar[int] = 2

    reference: str | None = Field(None, description="The training step whose model is the reference; by default model")
    beta: float = Field(0.1, gt=0, description="Strength of the tie to the reference (arXiv:2305.18290, eq. 7)")
    drawn: Drawn | None = Field(
        None, description="Draw the pairs from the model itself, to the prompts of the data's table `train`"
    )
    likelihood: float = Field(
        0.0, ge=0, description="Weight of the chosen answers' mean negative log-likelihood (arXiv:2404.19733, eq. 1)"
    )


def _tables(config: Config) -> list[str]:
    return ["train"] if config.drawn else ["preferences", "preferences_test"]


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: model, reference and comparisons or prompts."""
    config: Config = recipe.step(name)
    return [
        *posttrain.model_inputs(recipe, name, config.model, config.reference or config.model),
        *posttrain.data_inputs(recipe, name, config.data, _tables(config)),
    ]


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError for what cannot train; ``coming`` steps are made before this one in the same run."""
    config: Config = recipe.step(name)
    models = [config.model, config.reference or config.model]
    posttrain.check_inputs(recipe, name, coming, models, config.data, _tables(config))
    posttrain.check_same_tokenizer(recipe, name, config.model, {"reference": config.reference}, coming)
    if config.drawn:
        posttrain.check_room(recipe, f"{name}.drawn", config.model, config.drawn.new_tokens, coming)


def answer_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """The log-probability (B,) of each sequence's answer, its end token included."""
    logits_BLV = model(batch["tokens"], positions_BL=batch["positions"], segments_BL=batch["segments"])
    return only(token_log_probs(logits_BLV, batch["targets"]), batch["mask"]).sum(1)


def margins(policy_B: Tensor, reference_B: Tensor, beta: float) -> Tensor:
    """β (Δ chosen − Δ rejected) for each pair, Δ = log policy − log reference: the implicit reward's margin."""
    delta_B = beta * (policy_B - reference_B)
    return delta_B[0::2] - delta_B[1::2]


def dpo_loss(margin: Tensor) -> Tensor:
    """−log σ(margin): 0.693147 at margin 0; at β = 0.1 and a difference of 10 (margin 1) 0.313262."""
    return -F.logsigmoid(margin)


def make_loss(reference: nn.Module, config: Config) -> Loss:
    """The loss summed over pairs, and their number."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            reference_B = answer_log_probs(reference, batch)
        policy_B, real = answer_log_probs(model, batch), batch["real"]
        margin = margins(policy_B, reference_B, config.beta)
        total = only(dpo_loss(margin), real).sum()
        if config.likelihood:
            tokens = batch["mask"][0::2].sum(1).clamp(min=1)
            total = total + config.likelihood * only(-policy_B[0::2] / tokens, real).sum()
        logged = {"accuracy": ((margin > 0) & real).sum(), "margin": only(margin, real).sum()}
        return total, real.sum(), logged

    return loss


def _drawn(context: Context, drawn: Drawn, begin: posttrain.Start, model: nn.Module) -> Pairs:
    """Pairs of the model's own answers."""
    config: Config = context.config
    rows = posttrain.data_rows(context.recipe, context.name, config.data, "train")[: drawn.prompts]
    prompts, longer = encode_prompts(begin.tokenizer, rows, begin.architecture.context - drawn.new_tokens)
    dtype = torch.bfloat16 if config.precision in ("bf16", "float8") else torch.float32
    pairs = comparisons.kept(context, lambda: comparisons.draw(context, drawn, begin, model.eval(), prompts, dtype))
    return Pairs(*comparisons.split(context.name, pairs, config.held_back), longer)


def run(context: Context) -> None:
    """Train, export and publish ROOT/NAME, or find it done."""
    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    begin = posttrain.start(context, config.model)
    other = posttrain.start(context, config.reference) if config.reference else begin
    longest = begin.architecture.context
    model = posttrain.filled(context, begin.decoder, config, begin.state)
    if config.drawn:
        pairs = _drawn(context, config.drawn, begin, model)
    else:
        pairs = reward.read_pairs(context.recipe, context.name, begin.tokenizer, longest)
    width, pad = reward.pair_width(pairs, longest), chat.token_id(begin.tokenizer, chat.PAD)
    context.log("%d pairs, %d held back, %d too long", len(pairs.train), len(pairs.held_back), pairs.longer)
    loss = make_loss(posttrain.frozen(context, other.decoder, config, other.state), config)
    others = reward.cut(context, pairs.held_back, width, pad, config.micro_batch)

    def validate(made: nn.Module) -> dict[str, float]:
        return validation.of_loss(context, made, others, loss, "accuracy")

    def steps(position: int) -> Iterator[Step]:
        return reward.batches(context, config, pairs.train, width, pad, position)

    result = fit(context, model, steps, loss, config, validate)
    details = {"pairs": len(pairs.train), "held_back": len(pairs.held_back), "longer": pairs.longer}
    huggingface.publish(context, attempt, model, begin.architecture, begin.tokenizer_path, result, details)
