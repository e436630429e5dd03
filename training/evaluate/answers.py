"""Answers of a model to test tasks: greedy and sampled, judged as a whole, summed up and compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from dataeng.tokens import chat
from training import rewards
from training.context import Context
from training.data.examples import messages_of
from training.generate import Sampling, generate, noise_keys
from training.posttrain import Start


class Judged(NamedTuple):
    """One item and a model's answers to it: greedy, and sampled ones."""

    kind: str
    prompt: str
    expected: str
    greedy: str
    greedy_right: bool
    sampled: list[str]
    sampled_right: list[bool]


def answer(context: Context, model: nn.Module, begin: Start, items: Sequence[dict[str, Any]]) -> list[Judged]:
    """A model's answers to all items, in their order, on every rank; each rank answers its part.

    The model is one that generates without collectives (``parallel.gathered``). A prompt that leaves no
    room for an answer is answered by nothing, wrongly.
    """
    chats = [messages_of(item) for item in items]
    prompts = [chat.encode_prompt(begin.tokenizer, messages[:-1]) for messages in chats]
    taken = context.config.new_tokens if begin.architecture.kind == "decoder" else 0  # of a prompt's own room
    room = begin.architecture.context - taken
    fitting = sorted((i for i in range(len(items)) if len(prompts[i]) <= room), key=lambda i: (len(prompts[i]), i))
    mine = [fitting[at] for at in range(context.rank, len(fitting), context.world)]
    found: dict[int, list[tuple[str, bool]]] = {}
    for at in range(0, len(mine), context.config.prompts):
        some = mine[at : at + context.config.prompts]
        found |= zip(some, _some(context, model, begin, [prompts[i] for i in some], some), strict=True)
    everyone = {index: texts for part in context.gather(found) for index, texts in part.items()}
    nothing = [("", False)] * (1 + context.config.samples)
    return [
        _judge(item, messages, everyone.get(index, nothing))
        for index, (item, messages) in enumerate(zip(items, chats, strict=True))
    ]


def _some(
    context: Context, model: nn.Module, begin: Start, prompts: Sequence[list[int]], numbers: Sequence[int]
) -> list[list[tuple[str, bool]]]:
    """For each prompt its greedy answer, then its sampled ones: text, and whether it ended by itself."""
    config = context.config
    stops, pad = tuple(chat.stop_ids(begin.tokenizer)), chat.token_id(begin.tokenizer, chat.PAD)
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    keys = noise_keys(config.seed, 0, numbers, config.samples)
    made: list[list[tuple[str, bool]]] = [[] for _ in prompts]
    for temperature, samples in ((0.0, 1), (config.temperature, config.samples)):
        sampling = Sampling(stops, pad, config.new_tokens, temperature)
        rollout = generate(model, begin.architecture, prompts, sampling, samples, keys, dtype)
        for row, (ids, ended) in enumerate(zip(rollout.answers(), rollout.ended_B.tolist(), strict=True)):
            made[row // samples].append((chat.decode_answer(begin.tokenizer, ids), ended))
    return made


def _judge(item: dict[str, Any], messages: Sequence[chat.Message], texts: Sequence[tuple[str, bool]]) -> Judged:
    expected = messages[-1]["content"]
    right = [bool(rewards.exact(rewards.Answer(text, ended, expected))) for text, ended in texts]
    return Judged(
        kind=str(item.get("category", "")),
        prompt=messages[-2]["content"],
        expected=expected,
        greedy=texts[0][0],
        greedy_right=right[0],
        sampled=[text for text, _ in texts[1:]],
        sampled_right=right[1:],
    )


def shares(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """For each item, the share of its greedy and of its sampled answers that is right."""
    return {
        "greedy": [float(one.greedy_right) for one in judged],
        "sampled": [sum(one.sampled_right) / len(one.sampled_right) for one in judged],
    }


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, greedy and sampled, with its standard error over items, in all and by kind."""
    kinds = sorted({one.kind for one in judged})
    found = {}
    for name, values in shares(judged).items():
        by_kind = {k: [v for one, v in zip(judged, values, strict=True) if one.kind == k] for k in kinds}
        found[name] = {
            "accuracy": sum(values) / len(values),
            "error": standard_error(values),
            "by_kind": {kind: sum(some) / len(some) for kind, some in by_kind.items()},
        }
    return found


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of independent values."""
    if len(values) < 2:
        return math.nan
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def differences(judged: Sequence[Judged], baseline: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Greedy and sampled accuracy minus the baseline's on the same items, with the error of the paired difference."""
    ours, theirs = shares(judged), shares(baseline)
    found = {}
    for name in ours:
        paired = [a - b for a, b in zip(ours[name], theirs[name], strict=True)]
        found[name] = {"mean": sum(paired) / len(paired), "error": standard_error(paired)}
    return found


def shown(judged: Sequence[Judged], limit: int) -> list[dict[str, Any]]:
    """Items for readers, kinds in turn, with the greedy answer and one sampled answer."""
    kinds = sorted({one.kind for one in judged})
    by_kind = {kind: [one for one in judged if one.kind == kind] for kind in kinds}
    longest = max((len(some) for some in by_kind.values()), default=0)
    turns = [by_kind[kind][at] for at in range(longest) for kind in kinds if at < len(by_kind[kind])]
    return [
        {
            "kind": one.kind,
            "prompt": one.prompt,
            "expected": one.expected,
            "output": one.greedy,
            "correct": one.greedy_right,
            "sampled": one.sampled[0],
        }
        for one in turns[:limit]
    ]
