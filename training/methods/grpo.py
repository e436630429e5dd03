"""Step `grpo`: group relative policy optimisation (arXiv:2402.03300) with rewards that can be checked.

The loss is a mean over tokens: summed over all answers' tokens of a batch and divided by their number,
so that long answers weigh by their length and no answer's tokens are worth less than another's
(arXiv:2503.14476, 3.3). Groups whose answers all earn the same teach nothing and take no part, in the
sum, in the number or in the KL term.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from dataeng.recipe import Recipe, runtime
from training import huggingface, posttrain
from training.context import Context
from training.likelihood import clipped_objective, kl_k3, masked_sum, only, token_log_probs
from training.methods.reward import RewardModel
from training.rollouts import (
    Actors,
    RolloutConfig,
    answer_logits,
    encode_prompts,
    experience_rows,
    micro_batches,
    rollout_metrics,
    turns,
)
from training.trainer import Batch, Loss, Step, TrainingFailed, fit

# N prompts, G answers to each (a group), B = N × G sequences, C tokens of an answer
EPSILON = 1e-6  # added to a group's deviation
_BARREN = 50  # rollouts in a row without any spread, after which training gives up


class PolicyConfig(RolloutConfig):
    """Where PPO and GRPO start from and what they learn with."""

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    model: str = Field("sft", description="The training step whose model becomes the policy")
    reference: str | None = Field(None, description="The training step whose model is the reference; by default model")
    reward: str | None = Field(
        None, description="The step `reward` whose model judges, where rewards.model has a weight"
    )
    data: str | list[str] = runtime(
        "tasks", description="A stage with a table `train`, or JSONL files; their contents enter the fingerprint"
    )
    clip_ratio: float = Field(0.2, gt=0, lt=1, description="Bound of the ratio's way from 1 (arXiv:1707.06347)")
    epochs: int = Field(1, ge=1, description="Times that a rollout's answers are used")
    minibatches: int = Field(2, ge=1, description="Updates of one epoch, each with its part of the answers")

    @model_validator(mode="after")
    def _measured_by_rewards(self) -> PolicyConfig:
        if asked := self.asks_to_validate:
            raise ValueError(f"{asked}: there is no validation here: every row of metrics.jsonl has the rewards")
        return self

    @model_validator(mode="after")
    def _has_a_judge(self) -> PolicyConfig:
        if self.rewards.model and not self.reward:
            raise ValueError('rewards.model has a weight: name the step `reward` that judges, as reward = "reward"')
        return self

    def models(self) -> list[str]:
        """The training steps that this one reads."""
        judge = [self.reward] if self.reward and self.rewards.model else []
        return [self.model, self.reference or self.model, *judge]


class Config(PolicyConfig):
    """How groups are learned from."""

    samples: int = Field(8, ge=2, description="Answers to each prompt: a group, whose rewards are compared")
    version: ClassVar[int] = 2

    kl: float = Field(0.01, ge=0, description="Weight of the KL to the reference (k3), for each token")


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: models and prompts."""
    config: PolicyConfig = recipe.step(name)
    return [
        *posttrain.model_inputs(recipe, name, *config.models()),
        *posttrain.data_inputs(recipe, name, config.data, ["train"]),
    ]


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError for what cannot train; ``coming`` steps are made before this one in the same run."""
    config: PolicyConfig = recipe.step(name)
    posttrain.check_inputs(recipe, name, coming, config.models(), config.data, ["train"])
    posttrain.check_room(recipe, name, config.model, config.new_tokens, coming)
    judge = config.reward if config.rewards.model else None
    others = {"reference": config.reference, "reward": judge}
    posttrain.check_same_tokenizer(recipe, name, config.model, others, coming)
    if judge:
        posttrain.check_scores(recipe, name, judge, coming)


def advantages(rewards_NG: Tensor) -> tuple[Tensor, Tensor]:
    """(reward − mean) / (sample deviation + ε) in each group (N, G), and which groups (N,) have any spread.

    ±0.866025 for [1, 0, 0, 1]. A group without spread has advantage 0.
    """
    rewards_NG = rewards_NG.double()
    if rewards_NG.shape[1] < 2:
        return torch.zeros_like(rewards_NG).float(), torch.zeros(len(rewards_NG), dtype=torch.bool)
    deviation_N1 = rewards_NG.std(1, keepdim=True)
    live_N1 = deviation_N1 > EPSILON
    centred = rewards_NG - rewards_NG.mean(1, keepdim=True)
    return torch.where(live_N1, centred / (deviation_N1 + EPSILON), 0.0).float(), live_N1.squeeze(1)


def answer_likelihood(model: nn.Module, batch: Batch, temperature: float) -> Tensor:
    """Log-probabilities (B, C) of answers, at the temperature that they were drawn at."""
    width = batch["tokens"].shape[1] - batch["mask"].shape[1]
    logits_BLV = model(batch["tokens"], positions_BL=batch["positions"], segments_BL=batch["segments"])
    return token_log_probs(answer_logits(logits_BLV, width), batch["tokens"][:, width:], temperature)


def make_loss(config: Config) -> Loss:
    """The clipped objective plus the KL term, summed over answers' tokens, and the number of those."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mask = batch["mask"]
        # Cleared before and not after: the gradient of what a mask hides from NaN is 0 × NaN = NaN.
        log_probs, old, reference = (
            only(values, mask)
            for values in (answer_likelihood(model, batch, config.temperature), batch["old"], batch["reference"])
        )
        objective, clipped = clipped_objective(log_probs, old, batch["advantages"][:, None], config.clip_ratio)
        drift = kl_k3(log_probs, reference)
        total = masked_sum(objective + config.kl * drift, mask)
        return total, mask.sum(), {"kl": masked_sum(drift, mask), "clipped": (clipped & mask).sum()}

    return loss


def rollout_steps(context: Context, config: PolicyConfig, rows: Batch, live_B: Tensor, position: int) -> Iterator[Step]:
    """The updates of one rollout: live rows dealt to minibatches by their number among those of all ranks."""
    chosen = live_B.nonzero().squeeze(1)
    before = sum(context.gather(len(chosen))[: context.rank])
    turn_of = (torch.arange(len(chosen), device=chosen.device) + before) % config.minibatches
    dealt = [chosen[turn_of == part] for part in range(config.minibatches)]
    weights = context.total([float(rows["mask"][part].sum()) for part in dealt])
    updates = [at for _ in range(config.epochs) for at in range(config.minibatches) if weights[at] > 0]
    for turn, at in enumerate(updates, 1):
        micro = micro_batches(context, rows, config.micro_batch, dealt[at])
        yield Step(micro, weights[at], position, turn == len(updates))


def batches(context: Context, config: Config, actors: Actors, prompts: list[Any], position: int) -> Iterator[Step]:
    """Rollouts and their updates from a position on, each rollout made when it is asked for.

    Ends where no group differs any more; raises TrainingFailed where none ever did.
    """
    barren = 0
    for turn in turns(context, prompts, config.batch, position):
        judged = actors.judged(turn.prompts, turn.numbers, turn.rollout)
        advantages_NG, live_N = advantages(judged.rewards_B.view(-1, config.samples))
        live_B = live_N.to(judged.rewards_B.device).repeat_interleave(config.samples)
        rows = experience_rows(judged) | {"advantages": advantages_NG.flatten()}
        metrics = rollout_metrics(context, judged)
        [metrics["live_groups"], groups] = context.total([float(live_N.sum()), float(len(live_N))])
        metrics["live_groups"] /= groups
        barren = barren + 1 if metrics["live_groups"] == 0 else 0
        if barren >= _BARREN:
            said = f"{barren} rollouts in a row had no group with different rewards (mean {metrics['reward']:.3f})"
            if turn.rollout < _BARREN:
                raise TrainingFailed(f"{context.name}: {said}: there is nothing to learn from")
            context.log("%s: ending here", said)
            return
        for step in rollout_steps(context, config, rows, live_B, turn.position):
            step.metrics = metrics
            yield step


def actors_of(context: Context, config: PolicyConfig, begin: posttrain.Start, policy: nn.Module) -> Actors:
    """The policy with its frozen reference and, where it has a weight, the frozen reward model."""
    other = posttrain.start(context, config.reference) if config.reference else begin
    reference = posttrain.frozen(context, other.decoder, config, other.state)
    judge = None
    if config.reward and config.rewards.model:
        scored = posttrain.start(context, config.reward)
        state = dict(posttrain.scored_state(scored.state, "score", scored.architecture.width))
        if scored.architecture.tied is False:
            state.setdefault("decoder.lm_head.weight", torch.zeros(scored.vocabulary, scored.architecture.width))
        judge = posttrain.frozen(context, lambda: RewardModel(scored.decoder()), config, state)
    return Actors(context, config, begin.architecture, begin.tokenizer, policy, reference, judge)


def run(context: Context) -> None:
    """Train, export and publish ROOT/NAME, or find it done."""
    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    begin = posttrain.start(context, config.model)
    rows = posttrain.data_rows(context.recipe, context.name, config.data, "train")
    prompts, longer = encode_prompts(begin.tokenizer, rows, begin.architecture.context - config.new_tokens)
    context.log("%d prompts, %d longer than the context left out", len(prompts), longer)
    policy = posttrain.filled(context, begin.decoder, config, begin.state)
    actors = actors_of(context, config, begin, policy)

    def steps(position: int) -> Iterator[Step]:
        return batches(context, config, actors, prompts, position)

    result = fit(context, policy, steps, make_loss(config), config)
    details = {"prompts": len(prompts), "longer": longer, "rollouts": result.position // config.batch}
    huggingface.publish(context, attempt, policy, begin.architecture, begin.tokenizer_path, result, details)
