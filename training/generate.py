"""Generation with a key–value cache: batched, left-padded, with noise that does not depend on the batch.

A sampled token is a pure function of its distribution and of (seed, rollout, prompt, sample, place), so
that another number of workers, or another cut into batches, draws the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.model.cache import AnswerCache, KVCache
from training.model.config import ModelConfig

# B sequences (prompts × samples), N prompts, P prompt width, C answer width, L = P + C, V vocabulary
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): 64 bits in, 64 well-mixed bits out."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def noise_keys(seed: int, rollout: int, prompts: Sequence[int] | np.ndarray, samples: int) -> np.ndarray:
    """A 64-bit key for each of ``samples`` answers to each prompt, prompts outermost."""
    with np.errstate(over="ignore"):
        key = np.zeros(1, np.uint64)
        for part in (seed, rollout):
            key = _mix(key + _GOLDEN + np.uint64(part % 2**64))
        rows = _mix(key + _GOLDEN + np.asarray(prompts, np.uint64))
        return _mix(rows[:, None] + _GOLDEN * np.arange(1, samples + 1, dtype=np.uint64)).ravel()


def uniforms(keys: np.ndarray, place: int | np.ndarray) -> np.ndarray:
    """One number in [0, 1) for each key, for the token at ``place`` (or at each of several places)."""
    with np.errstate(over="ignore"):
        mixed = _mix(keys + _GOLDEN * np.asarray(place + 1, np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


def pick(logits_BV: Tensor, temperature: float, uniform_B: np.ndarray | None) -> Tensor:
    """The next token of each row: the likeliest at temperature 0, else drawn by inverting the distribution."""
    if temperature == 0 or uniform_B is None:
        return logits_BV.argmax(-1)
    cumulated = torch.softmax(logits_BV.double() / temperature, -1).cumsum(-1)
    wanted = torch.from_numpy(uniform_B).to(logits_BV.device)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True).squeeze(1).clamp(max=logits_BV.shape[-1] - 1)


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. ``width_step``: prompts and answers are padded to multiples of it, in tokens."""

    stops: tuple[int, ...]
    pad: int
    new_tokens: int
    temperature: float = 1.0  # 0 for the likeliest token
    width_step: int = 8


@dataclass(frozen=True)
class Rollout:
    """Prompts, left-padded, with their answers, right-padded; ``answer_BC`` is true on answers and stops."""

    tokens_BL: Tensor
    positions_BL: Tensor
    segments_BL: Tensor  # 1, and 0 on padding
    answer_BC: Tensor
    ended_B: Tensor  # whether the answer came to a stop token
    prompt_width: int

    def answers(self) -> list[list[int]]:
        """The ids of each answer, its stop token included."""
        tokens_BC = self.tokens_BL[:, self.prompt_width :]
        return [row[mask].tolist() for row, mask in zip(tokens_BC, self.answer_BC, strict=True)]


def left_padded(prompts: Sequence[Sequence[int]], pad: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts as tokens, positions and segments (N, P), P a multiple of ``step``; padding has segment 0."""
    width = -(-max(map(len, prompts)) // step) * step
    tokens = torch.full((len(prompts), width), pad)
    segments = torch.zeros((len(prompts), width), dtype=torch.int64)
    for row, ids in enumerate(prompts):
        tokens[row, width - len(ids) :] = torch.tensor(ids)
        segments[row, width - len(ids) :] = 1
    positions = (segments.cumsum(1) - 1).clamp(min=0)
    return tokens, positions, segments


@torch.no_grad()
def generate(
    model: nn.Module,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    samples: int = 1,
    keys: np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
) -> Rollout:
    """``samples`` answers to each prompt (rows: prompts outermost), of at most ``new_tokens`` tokens.

    A decoder goes on from the prompt, an encoder–decoder reads it and answers. ``keys``: of ``noise_keys``, one a row;
    not needed at temperature 0. ``dtype``: of the cache. A sharded model must be ``parallel.gathered``. Raises
    ValueError where it would outgrow the context.
    """
    device, two_sided = next(model.parameters()).device, config.kind == "encoder_decoder"
    longest, more = max(map(len, prompts)), sampling.new_tokens
    if (max(longest, more) if two_sided else longest + more) > config.context:
        raise ValueError(f"{longest} + {more} tokens do not fit into a context of {config.context}")
    prompt = [x.to(device) for x in left_padded(prompts, sampling.pad, sampling.width_step)]
    begin = _begin_answer if two_sided else _begin_continuation
    logits_NV, advance = begin(model, config, prompt, sampling, samples, dtype)
    drawn, live = _decode(advance, logits_NV.repeat_interleave(samples, 0), sampling, keys)
    whole = [x.repeat_interleave(samples, 0) for x in prompt]
    return _assembled(whole, drawn, live, sampling)


# advance(tokens (B,), place, live (B,)): logits (B, V) after each answer's token at that place.
Advance = Callable[[Tensor, int, Tensor], Tensor]


def _begin_continuation(
    model: nn.Module, config: ModelConfig, prompt: list[Tensor], sampling: Sampling, samples: int, dtype: torch.dtype
) -> tuple[Tensor, Advance]:
    """A decoder's logits after each prompt (N, V), and how it goes on."""
    tokens, positions, segments = prompt
    first = KVCache(config, tokens.shape[0], tokens.shape[1], tokens.device, dtype)
    logits = model(tokens, positions_BL=positions, segments_BL=segments, cache=first)[:, -1]
    cache = first.widened(samples, tokens.shape[1] + sampling.new_tokens)
    place_B = positions[:, -1].repeat_interleave(samples, 0)

    def advance(token_B: Tensor, place: int, live_B: Tensor) -> Tensor:
        more: dict[str, Any] = {"positions_BL": (place_B + place + 1)[:, None], "segments_BL": live_B[:, None].long()}
        made: Tensor = model(token_B[:, None], cache=cache, **more)[:, -1]
        return made

    return logits, advance


def _begin_answer(
    model: nn.Module, config: ModelConfig, prompt: list[Tensor], sampling: Sampling, samples: int, dtype: torch.dtype
) -> tuple[Tensor, Advance]:
    """An encoder–decoder's logits (N, V) after the padding token that answers begin with, and how it goes on."""
    tokens, _, segments = prompt
    first = AnswerCache(KVCache(config, len(tokens), 1, tokens.device, dtype))
    logits = model(tokens, torch.full_like(tokens[:, :1], sampling.pad), segments, cache=first)[:, -1]
    cache = first.widened(samples, 1 + sampling.new_tokens)

    def advance(token_B: Tensor, place: int, live_B: Tensor) -> Tensor:
        made: Tensor = model(None, token_B[:, None], cache=cache)[:, -1]
        return made

    return logits, advance


def _decode(
    advance: Advance, logits_BV: Tensor, sampling: Sampling, keys: np.ndarray | None
) -> tuple[list[Tensor], list[Tensor]]:
    """The drawn tokens, a list of (B,), and which of them belong to an answer."""
    stops = torch.tensor(sampling.stops, device=logits_BV.device)
    live_B = torch.ones(logits_BV.shape[0], dtype=torch.bool, device=logits_BV.device)
    drawn: list[Tensor] = []
    live: list[Tensor] = []
    for place in range(sampling.new_tokens):
        token_B = pick(logits_BV.float(), sampling.temperature, None if keys is None else uniforms(keys, place))
        drawn.append(torch.where(live_B, token_B, sampling.pad))
        live.append(live_B)
        live_B = live_B & ~torch.isin(token_B, stops)
        if place + 1 == sampling.new_tokens or not live_B.any():
            break
        logits_BV = advance(drawn[-1], place, live_B)
    return drawn, live


def _assembled(prompt: list[Tensor], drawn: list[Tensor], live: list[Tensor], sampling: Sampling) -> Rollout:
    """Prompts and answers side by side, answers padded to a multiple of the width step."""
    place_B = prompt[1][:, -1]
    tokens_BC, answer_BC = torch.stack(drawn, 1), torch.stack(live, 1)
    more = min(-(-len(drawn) // sampling.width_step) * sampling.width_step, sampling.new_tokens) - len(drawn)
    tokens_BC = torch.nn.functional.pad(tokens_BC, (0, more), value=sampling.pad)
    answer_BC = torch.nn.functional.pad(answer_BC, (0, more), value=False)
    stops = torch.tensor(sampling.stops, device=tokens_BC.device)
    positions_BC = place_B[:, None] + torch.arange(1, tokens_BC.shape[1] + 1, device=tokens_BC.device)
    return Rollout(
        tokens_BL=torch.cat((prompt[0], tokens_BC), 1),
        positions_BL=torch.cat((prompt[1], positions_BC * answer_BC), 1),
        segments_BL=torch.cat((prompt[2], answer_BC.long()), 1),
        answer_BC=answer_BC,
        ended_B=(torch.isin(tokens_BC, stops) & answer_BC).any(1),
        prompt_width=prompt[0].shape[1],
    )
