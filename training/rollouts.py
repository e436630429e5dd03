"""Experience for reinforcement learning: answers that the policy gives, judged, with log-probabilities.

All of it is made on demand, before the updates that use it. The policy's log-probabilities are computed
anew by the plain forward of the trainer, at the temperature that the answers were drawn at, so that
the first ratio is 1 whatever a cache rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataeng.cli import UserError
from dataeng.recipe import runtime
from dataeng.tokens import chat
from training import parallel
from training.context import Context
from training.data.examples import Batch, instruction_of, order
from training.generate import Rollout, Sampling, generate, noise_keys
from training.likelihood import token_log_probs
from training.model.config import ModelConfig
from training.rewards import Answer, Rewards, combine
from training.settings import TrainerConfig

# N prompts, B sequences (N × samples), L = P + C tokens of each, P prompt, C answer


class RolloutConfig(TrainerConfig):
    """What PPO and GRPO share. ``batch`` counts prompts, ``micro_batch`` sequences, ``max_steps`` updates."""

    batch: int = Field(32, ge=1, description="Prompts of a rollout")
    micro_batch: int = runtime(64, ge=1, description="Sequences that a worker takes at once")
    samples: int = Field(8, ge=1, description="Answers to each prompt")
    new_tokens: int = Field(20, ge=1, description="Longest answer, in tokens, its end token included")
    temperature: float = Field(1.0, gt=0, description="Temperature that answers are drawn at, and trained at")
    rewards: Rewards = Field(
        default_factory=lambda: Rewards.model_validate({}), description="What an answer is rewarded for"
    )


class Prompt(NamedTuple):
    """A prompt's ids, the assistant's turn opened, and the expected answer."""

    ids: list[int]
    expected: str


def encode_prompts(tokenizer: Any, rows: Sequence[dict[str, Any]], longest: int) -> tuple[list[Prompt], int]:
    """Prompts of at most ``longest`` tokens from rows with an instruction and an output; how many were longer.

    Raises UserError where none is left.
    """
    made = []
    for row in rows:
        asked, expected = instruction_of(row), row.get("output", row.get("answer"))
        if asked is None or expected is None:
            raise UserError(f"a row with the keys {sorted(row)}: needs instruction and output, or question and answer")
        made.append(Prompt(chat.encode_prompt(tokenizer, [{"role": "user", "content": asked}]), str(expected)))
    kept = [prompt for prompt in made if len(prompt.ids) <= longest]
    if not kept:
        raise UserError(f"{len(made)} prompts: none has at most {longest} tokens: raise the model's context")
    return kept, len(made) - len(kept)


@dataclass(frozen=True)
class Judged:
    """One rank's part of a rollout batch, its rewards (one a sequence) and its log-probabilities (B, C)."""

    rollout: Rollout
    rewards_B: Tensor
    policy_BC: Tensor
    reference_BC: Tensor
    values_BC: Tensor | None = None

    @property
    def answer_BC(self) -> Tensor:
        """Where answers and their end tokens stand."""
        return self.rollout.answer_BC


def answer_logits(logits_BLV: Tensor, width: int) -> Tensor:
    """The logits (B, C, V) that predict the answers which begin at ``width``."""
    return logits_BLV[:, width - 1 : -1]


class Actors:
    """The models of one worker and what is needed to use them: policy, reference, reward model."""

    def __init__(
        self,
        context: Context,
        config: RolloutConfig,
        architecture: ModelConfig,
        tokenizer: Any,
        policy: nn.Module,
        reference: nn.Module,
        reward: nn.Module | None = None,
    ) -> None:
        self.context, self.config, self.architecture, self.tokenizer = context, config, architecture, tokenizer
        self.policy, self.reference, self.reward = policy, reference, reward
        self.sampling = Sampling(
            stops=tuple(chat.stop_ids(tokenizer)),
            pad=chat.token_id(tokenizer, chat.PAD),
            new_tokens=config.new_tokens,
            temperature=config.temperature,
        )

    def judged(self, prompts: Sequence[Prompt], numbers: Sequence[int], rollout: int) -> Judged:
        """This rank's answers to its prompts; ``numbers`` tell the prompts of the ``rollout`` apart."""
        keys = noise_keys(self.context.seed, rollout, numbers, self.config.samples)
        self.policy.eval()
        with torch.no_grad(), parallel.gathered(self.policy), parallel.autocast(self.context, self.config):
            ids = [prompt.ids for prompt in prompts]
            dtype = torch.bfloat16 if self.config.precision in ("bf16", "float8") else torch.float32
            found = generate(self.policy, self.architecture, ids, self.sampling, self.config.samples, keys, dtype)
            policy, values = self._scored(self.policy, found)
        with torch.no_grad(), parallel.gathered(self.reference), parallel.autocast(self.context, self.config):
            reference, _ = self._scored(self.reference, found)
        self.policy.train()
        rewards = torch.tensor(self._rewards(prompts, found), device=policy.device)
        return Judged(found, rewards, policy, reference, values)

    def _scored(self, model: nn.Module, found: Rollout) -> tuple[Tensor, Tensor | None]:
        """Log-probabilities (B, C) of the answers under a model and, of an actor with a critic, values."""
        parts, values = [], []
        for at in range(0, found.tokens_BL.shape[0], self.config.micro_batch):
            rows = slice(at, at + self.config.micro_batch)
            out = model(found.tokens_BL[rows], found.positions_BL[rows], found.segments_BL[rows])
            logits, value = out if isinstance(out, tuple) else (out, None)
            answers = found.tokens_BL[rows, found.prompt_width :]
            parts.append(token_log_probs(answer_logits(logits, found.prompt_width), answers, self.config.temperature))
            if value is not None:
                values.append(value[:, found.prompt_width - 1 : -1])
        return torch.cat(parts), torch.cat(values) if values else None

    def _rewards(self, prompts: Sequence[Prompt], found: Rollout) -> list[float]:
        answers = [
            Answer(chat.decode_answer(self.tokenizer, ids), bool(ended), prompts[row // self.config.samples].expected)
            for row, (ids, ended) in enumerate(zip(found.answers(), found.ended_B, strict=True))
        ]
        scores = None
        if self.reward is not None and self.config.rewards.model:
            with torch.no_grad(), parallel.gathered(self.reward), parallel.autocast(self.context, self.config):
                scores = self.reward(found.tokens_BL, found.positions_BL, found.segments_BL).tolist()
        return combine(self.config.rewards, answers, scores)


class Turn(NamedTuple):
    """One rollout: its number, the position after it, and this rank's prompts with their numbers."""

    rollout: int
    position: int
    prompts: list[Prompt]
    numbers: list[int]


def turns(context: Context, prompts: Sequence[Prompt], batch: int, position: int) -> Iterator[Turn]:
    """The rollouts from a position (prompts used up) on, for ever; prompts in the order of the seed."""
    while True:
        indices = order(context.seed, context.title, position, batch, len(prompts))
        mine = context.share(batch)
        chosen = [prompts[indices[at]] for at in mine]
        # A prompt may come twice in one rollout: its place, not its index, tells its answers apart.
        yield Turn(position // batch, position + batch, chosen, list(mine))
        position += batch


def micro_batches(context: Context, rows: Batch, size: int, chosen: Tensor) -> list[Batch]:
    """The chosen rows (indices) cut into micro-batches of about ``size``, as many on every rank.

    Rows of zero weight fill up: ``rows["mask"]`` says which tokens count, and is false on them.
    """
    kept = {name: value[chosen] for name, value in rows.items()}
    mine = len(chosen)
    most = max(context.gather(mine))
    turns = -(-most // size)
    size = -(-most // (8 * turns)) * 8  # a multiple of 8: few shapes
    total = size * turns
    filled = {
        name: F.pad(value, (0, 0) * (value.ndim - 1) + (0, total - mine)) if total > mine else value
        for name, value in kept.items()
    }
    return [{name: value[at : at + size] for name, value in filled.items()} for at in range(0, total, size)]


def experience_rows(judged: Judged) -> Batch:
    """The parts of a judged rollout that every loss needs, a row a sequence."""
    found = judged.rollout
    return {
        "tokens": found.tokens_BL,
        "positions": found.positions_BL,
        "segments": found.segments_BL,
        "mask": found.answer_BC,
        "old": judged.policy_BC,
        "reference": judged.reference_BC,
    }


def rollout_metrics(context: Context, judged: Judged) -> dict[str, float]:
    """Global means to log: reward, share of answers that ended, answer length, KL to the reference (k1)."""
    tokens = float(judged.answer_BC.sum())
    drift = float(torch.where(judged.answer_BC, judged.policy_BC - judged.reference_BC, 0.0).sum())
    sums = [
        float(len(judged.rewards_B)),
        float(judged.rewards_B.sum()),
        float(judged.rollout.ended_B.sum()),
        tokens,
        drift,
    ]
    count, reward, ended, length, drift = context.total(sums)
    return {
        "reward": reward / count,
        "ended": ended / count,
        "answer_tokens": length / count,
        "reference_kl": drift / max(length, 1.0),
    }
