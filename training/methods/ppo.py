"""Step `ppo`: proximal policy optimisation (arXiv:1707.06347) with a value head on the policy's trunk.

An answer's reward comes with its last token, its end token where it ended; each of its tokens pays for
going away from the reference (arXiv:2203.02155). Advantages are whitened over all answers' tokens of the
rollout batch. The loss is a mean over answers' tokens. Padding enters nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training import huggingface, posttrain, weights
from training.context import Context
from training.likelihood import clipped_objective, masked_sum, only, token_log_probs
from training.methods import grpo
from training.methods.grpo import PolicyConfig, check, inputs
from training.model.cache import KVCache
from training.model.decoder import Decoder
from training.posttrain import Scored
from training.rollouts import (
    Actors,
    Judged,
    answer_logits,
    encode_prompts,
    experience_rows,
    rollout_metrics,
    turns,
)
from training.trainer import Batch, Loss, Step, fit

# B sequences, L tokens of each, C tokens of an answer, V vocabulary

__all__ = ["ActorCritic", "Config", "check", "gae", "inputs", "make_loss", "run"]


class Config(PolicyConfig):
    """How far to look, what the critic weighs, what it costs to leave the reference."""

    version: ClassVar[int] = 2

    batch: int = Field(128, ge=1, description="Prompts of a rollout")
    samples: int = Field(1, ge=1, description="Answers to each prompt")
    kl: float = Field(0.01, ge=0, description="Price of a token's log-ratio to the reference, in rewards")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount of later rewards")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="GAE's λ (arXiv:1506.02438)")
    value_clip: float = Field(0.2, gt=0, description="Bound of a value's way from the old one")
    value_weight: float = Field(0.5, ge=0, description="Weight of the critic's loss")


class ActorCritic(Scored):
    """A decoder with a value for each token. Called with a cache it is the decoder alone."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder, "value")

    def forward(
        self,
        tokens_BL: Tensor,
        positions_BL: Tensor | None = None,
        segments_BL: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (B, L, V) and, without a cache, values (B, L) in fp32."""
        hidden_BLD = self.decoder(tokens_BL, positions_BL, segments_BL, cache, return_hidden=True)
        logits_BLV: Tensor = self.decoder.lm_head(hidden_BLD)
        return logits_BLV if cache is not None else (logits_BLV, self.scalars(hidden_BLD))


def token_rewards(scores_B: Tensor, policy_BC: Tensor, reference_BC: Tensor, mask_BC: Tensor, kl: float) -> Tensor:
    """Each token's reward (B, C): the price of its log-ratio, and with the last token the answer's score."""
    rewards_BC = only(-kl * (policy_BC - reference_BC), mask_BC)
    after_BC = torch.nn.functional.pad(mask_BC[:, 1:], (0, 1), value=False)
    return rewards_BC + only(scores_B[:, None].expand_as(rewards_BC), mask_BC & ~after_BC)


def gae(
    rewards_BC: Tensor, values_BC: Tensor, mask_BC: Tensor, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns (B, C) (arXiv:1506.02438, eq. 16); 0 outside of the mask.

    δ_t = r_t + γ V_{t+1} − V_t, A_t = δ_t + γ λ A_{t+1}; nothing follows an answer's last token.
    """
    rewards_BC, values_BC = only(rewards_BC, mask_BC), only(values_BC, mask_BC)
    advantages_BC = torch.zeros_like(values_BC)
    later_B = next_B = torch.zeros_like(values_BC[:, 0])
    for place in range(values_BC.shape[1] - 1, -1, -1):
        delta_B = rewards_BC[:, place] + gamma * next_B - values_BC[:, place]
        later_B = only(delta_B + gamma * gae_lambda * later_B, mask_BC[:, place])
        next_B = values_BC[:, place]
        advantages_BC[:, place] = later_B
    return advantages_BC, only(advantages_BC + values_BC, mask_BC)


def whiten(context: Context, values_BC: Tensor, mask_BC: Tensor) -> Tensor:
    """Values shifted and scaled to mean 0 and deviation 1 over the masked tokens of all ranks; 0 elsewhere."""
    kept = only(values_BC, mask_BC).double()
    count, total = context.total([float(mask_BC.sum()), float(kept.sum())])
    mean = total / max(count, 1.0)
    [squares] = context.total([float(only((kept - mean) ** 2, mask_BC).sum())])
    deviation = (squares / max(count - 1.0, 1.0)) ** 0.5
    return only((kept - mean) / (deviation + 1e-8), mask_BC).to(values_BC.dtype)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error of values, or of values held near the old ones where that is more."""
    held = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (held - returns) ** 2)


def make_loss(config: Config) -> Loss:
    """The clipped objective plus the critic's loss, summed over answers' tokens, and the number of those."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        mask = batch["mask"]
        width = batch["tokens"].shape[1] - mask.shape[1]
        logits_BLV, values_BL = model(batch["tokens"], batch["positions"], batch["segments"])
        answers = batch["tokens"][:, width:]
        # Cleared before and not after: the gradient of what a mask hides from NaN is 0 × NaN = NaN.
        log_probs = only(token_log_probs(answer_logits(logits_BLV, width), answers, config.temperature), mask)
        old, advantages, values, returns = (
            only(batch[name], mask) for name in ("old", "advantages", "values", "returns")
        )
        objective, clipped = clipped_objective(log_probs, old, advantages, config.clip_ratio)
        critic = value_loss(only(values_BL[:, width - 1 : -1], mask), values, returns, config.value_clip)
        total = masked_sum(objective, mask) + config.value_weight * masked_sum(critic, mask)
        logged = {"value_loss": masked_sum(critic, mask), "clipped": (clipped & mask).sum()}
        return total, mask.sum(), logged

    return loss


def experience(context: Context, config: Config, judged: Judged) -> Batch:
    """The rows that the updates of a rollout need, advantages whitened over all ranks."""
    if judged.values_BC is None:
        raise ValueError("PPO needs a policy with a value head")
    mask_BC = judged.answer_BC
    rewards_BC = token_rewards(judged.rewards_B, judged.policy_BC, judged.reference_BC, mask_BC, config.kl)
    advantages_BC, returns_BC = gae(rewards_BC, judged.values_BC, mask_BC, config.gamma, config.gae_lambda)
    return experience_rows(judged) | {
        "values": judged.values_BC,
        "returns": returns_BC,
        "advantages": whiten(context, advantages_BC, mask_BC),
    }


def batches(context: Context, config: Config, actors: Actors, prompts: list[Any], position: int) -> Iterator[Step]:
    """Rollouts and their updates from a position on, for ever, each rollout made when it is asked for."""
    for turn in turns(context, prompts, config.batch, position):
        judged = actors.judged(turn.prompts, turn.numbers, turn.rollout)
        rows = experience(context, config, judged)
        metrics = rollout_metrics(context, judged)
        everyone = torch.ones(len(judged.rewards_B), dtype=torch.bool, device=judged.rewards_B.device)
        for step in grpo.rollout_steps(context, config, rows, everyone, turn.position):
            step.metrics = metrics
            yield step


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
    state = posttrain.scored_state(begin.state, "value", begin.architecture.width)
    policy = posttrain.filled(context, lambda: ActorCritic(begin.decoder()), config, state)
    actors = grpo.actors_of(context, config, begin, policy)

    def steps(position: int) -> Iterator[Step]:
        return batches(context, config, actors, prompts, position)

    result = fit(context, policy, steps, make_loss(config), config)
    details = {"prompts": len(prompts), "longer": longer, "rollouts": result.position // config.batch}
    plain = posttrain.unscored(weights.Gathered(policy))
    huggingface.publish_state(context, attempt, plain, begin.architecture, begin.tokenizer_path, result, details)
