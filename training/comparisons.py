"""Comparisons drawn from a model itself: its own right answers before its own wrong ones.

Pairs that others wrote teach little about the mistakes that a model makes; its own do (arXiv:2404.19733).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import nn

from dataeng import storage
from dataeng.cli import UserError
from dataeng.recipe import Table, runtime
from dataeng.tokens import chat
from training import parallel
from training.context import Context
from training.data.examples import EncodedPair, Example
from training.generate import Sampling, generate, noise_keys
from training.posttrain import Start
from training.rewards import Answer, Rewards, combine
from training.rollouts import Prompt


class Drawn(Table):
    """How many answers are drawn, and what makes one better than another."""

    prompts: int = Field(2000, ge=1, description="Prompts that answers are drawn to, the first ones of the data")
    samples: int = Field(8, ge=2, description="Answers to each prompt")
    new_tokens: int = Field(20, ge=1, description="Longest answer, in tokens, its end token included")
    temperature: float = Field(1.0, gt=0, description="Temperature that answers are drawn at")
    rewards: Rewards = Field(
        default_factory=lambda: Rewards.model_validate({}), description="What makes an answer better (no model here)"
    )
    at_once: int = runtime(32, ge=1, description="Prompts that a worker answers at once")


def ranked_pairs(answers: Sequence[tuple[int, ...]], rewards: Sequence[float]) -> list[tuple[int, int]]:
    """Index pairs (better, worse): the best with the worst, the next with the next, while they differ.

    The same two answers are paired once.
    """
    ranked = sorted(range(len(answers)), key=lambda index: -rewards[index])
    pairs = zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False)
    found = {(answers[a], answers[b]): (a, b) for a, b in pairs if rewards[a] > rewards[b]}
    return list(found.values())


def kept(context: Context, draw: Callable[[], list[EncodedPair]]) -> list[EncodedPair]:
    """The pairs that this run drew when it first began, kept beside its checkpoints; all processes call it.

    Drawn again by another number of workers, an answer can differ by rounding, and with the pairs' number their order.
    """
    path = storage.join(context.checkpoints, "pairs.jsonl")
    if not context.first_does(lambda: storage.stat(path) is not None):
        text = "".join(_line(pair) + "\n" for pair in draw())
        context.first_does(lambda: storage.write_if(path, text.encode(), None))
    text = context.first_does(lambda: storage.read_bytes(path).decode())
    return [_pair(line) for line in text.splitlines()]


def _line(pair: EncodedPair) -> str:
    chosen, rejected = pair
    return json.dumps({"chosen": chosen.ids, "rejected": rejected.ids, "prompt": chosen.mask.index(True)})


def _pair(line: str) -> EncodedPair:
    row = json.loads(line)
    sides = [_side(row[side][: row["prompt"]], row[side][row["prompt"] :]) for side in EncodedPair._fields]
    return EncodedPair(*sides)


def _side(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    return Example([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


def draw(
    context: Context, config: Drawn, begin: Start, model: nn.Module, prompts: Sequence[Prompt], dtype: torch.dtype
) -> list[EncodedPair]:
    """The pairs of all prompts, in their order, the same on every rank."""
    stops = tuple(chat.stop_ids(begin.tokenizer))
    pad = chat.token_id(begin.tokenizer, chat.PAD)
    sampling = Sampling(stops, pad, config.new_tokens, config.temperature)
    mine, found = context.share(len(prompts)), []
    with torch.no_grad(), parallel.gathered(model), parallel.autocast(context, context.config):
        for at in range(0, len(mine), config.at_once):
            numbers = mine[at : at + config.at_once]
            some = [prompts[number] for number in numbers]
            keys = noise_keys(context.seed, 0, numbers, config.samples)
            rollout = generate(
                model, begin.architecture, [prompt.ids for prompt in some], sampling, config.samples, keys, dtype
            )
            drawn = list(zip(rollout.answers(), rollout.ended_B.tolist(), strict=True))
            for place, prompt in enumerate(some):
                own = drawn[place * config.samples : (place + 1) * config.samples]
                found += _pairs(begin.tokenizer, config.rewards, prompt, own)
    return [pair for part in context.gather(found) for pair in part]


def _pairs(
    tokenizer: Any, rewards: Rewards, prompt: Prompt, drawn: Sequence[tuple[list[int], bool]]
) -> list[EncodedPair]:
    answers = [Answer(chat.decode_answer(tokenizer, ids), ended, prompt.expected) for ids, ended in drawn]
    sides = [_side(prompt.ids, ids) for ids, _ in drawn]
    chosen = ranked_pairs([tuple(ids) for ids, _ in drawn], combine(rewards, answers))
    return [EncodedPair(sides[a], sides[b]) for a, b in chosen]


def split(name: str, pairs: Sequence[EncodedPair], held_back: float) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """Pairs to train on, and the last ones, held back; raises UserError where there are too few."""
    cut = len(pairs) - max(1, round(len(pairs) * held_back))
    if cut < 1:
        raise UserError(f"{name}: the drawn answers gave {len(pairs)} pairs: draw more answers to more prompts")
    return list(pairs[:cut]), list(pairs[cut:])
