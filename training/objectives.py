"""What encoders and encoder–decoders learn from: tokens or spans hidden at random, to be said again.

Noise is a pure function of (seed, global sample, token's place in it), so that workers, micro-batches and resumed
runs hide the same tokens. Every row has the same number of targets: a global batch's weight is known beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dataeng.tokens import chat
from training.data.order import ByStep
from training.data.plan import Plan
from training.generate import noise_keys, uniforms
from training.likelihood import IGNORED
from training.noise import Masking, SpanNoise
from training.trainer import Batch, Step

# R rows, L tokens of a row, S tokens of a sample, V vocabulary
_CHOICE, _KIND, _TOKEN = 0, 1, 2  # what a number is drawn for


def word_edges(tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """For each token (V,): whether a word may go on with it, and whether one may go on after it."""
    from tokenizers.models import WordPiece

    size = tokenizer.get_vocab_size()
    names = [tokenizer.id_to_token(number) or "" for number in range(size)]
    if isinstance(tokenizer.model, WordPiece):
        return np.array([name.startswith("##") for name in names]), np.ones(size, bool)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    texts = [
        "" if name in special else tokenizer.decode([n], skip_special_tokens=False) for n, name in enumerate(names)
    ]
    inner = [(text[:1], text[-1:]) for text in texts]  # half a character is decoded to U+FFFD
    goes_on, open_end = ([c.isalnum() or c == "\ufffd" for c in side] for side in zip(*inner, strict=True))
    begins = np.array([name.startswith("\u2581") for name in names])  # SentencePiece's space, which decoding can drop
    return np.array(goes_on) & ~begins, np.array(open_end)


class Noise(ABC):
    """What is done to rows of a stream of tokens before they are learned from."""

    seed: int

    @abstractmethod
    def count(self, row_tokens: int) -> int:
        """The targets of a row."""

    @abstractmethod
    def batch(self, batch: Batch, keys_R: np.ndarray, first_R: np.ndarray) -> Batch:
        """A micro-batch after the noise; rows past the keys fill it up and keep no target.

        ``keys_R`` are of samples, ``first_R`` each row's place in its sample.
        """

    def steps(self, steps: Iterator[Step], plan: Plan, row_tokens: ByStep) -> Iterator[Step]:
        """Steps of a stream of tokens, with noise that follows from global sample and place."""
        for step in steps:
            number = plan.batch.step(step.position) - 1
            width, samples = row_tokens.at(number), list(plan.share(number))
            pieces = plan.sample_tokens // width
            keys = np.repeat(noise_keys(self.seed, 0, samples, 1), pieces)
            first = np.tile(np.arange(pieces) * width, len(samples))
            step.micro = self._cut(step.micro, keys, first)
            step.weight = float(plan.batch.at(number) * pieces * self.count(width))
            yield step

    def _cut(self, micro: Sequence[Batch], keys_R: np.ndarray, first_R: np.ndarray) -> list[Batch]:
        made, used = [], 0
        for batch in micro:
            end = used + len(batch["tokens"])
            made.append(self.batch(batch, keys_R[used:end], first_R[used:end]))
            used = end
        return made

    def held_back(self, micro: Sequence[Batch]) -> list[Batch]:
        """Validation's micro-batches: the noise follows from each row's own tokens, and is always the same."""
        made = []
        for batch in micro:
            tokens = batch["tokens"].numpy()
            rows = int((batch["targets"] != IGNORED).any(1).sum())  # those that fill it up come last
            factors = noise_keys(self.seed, 1, range(tokens.shape[1]), 1) | np.uint64(1)
            with np.errstate(over="ignore"):
                content = (tokens[:rows].astype(np.uint64) + np.uint64(1)) * factors
                keys = noise_keys(self.seed, 2, content.sum(1), 1) if rows else np.empty(0, np.uint64)
            made.append(self.batch(batch, keys, np.zeros(rows, np.int64)))
        return made


class Masker(Noise):
    """Hides tokens from an encoder, which has to say them (BERT, arXiv:1810.04805)."""

    def __init__(self, config: Masking, tokenizer: Any, path: str, seed: int) -> None:
        self.config, self.seed = config, seed
        self.mask, self.vocabulary = chat.mask_id(tokenizer, path), tokenizer.get_vocab_size()
        special = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
        self.special = np.zeros(self.vocabulary, bool)
        self.special[special] = True
        self.edges = word_edges(tokenizer) if config.whole_words else None

    def __call__(self, tokens_RL: np.ndarray, keys_R: np.ndarray, first_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets (R, L); ``keys_R`` are of samples, ``first_R`` each row's place in its sample."""
        count = self.config.count(tokens_RL.shape[1])
        places_RL = first_R[:, None] + np.arange(tokens_RL.shape[1])
        choice, kind, token = (uniforms(keys_R[:, None], 3 * places_RL + use) for use in (_CHOICE, _KIND, _TOKEN))
        choice = choice + self.special[tokens_RL]  # those of no text come last
        if self.edges is None:
            chosen_RL = np.zeros(tokens_RL.shape, bool)
            np.put_along_axis(chosen_RL, np.argpartition(choice, count - 1, 1)[:, :count], True, 1)
        else:
            chosen_RL = np.stack([self._words(*row, count) for row in zip(tokens_RL, choice, strict=True)])
        anything = (token * self.vocabulary).astype(np.int64)
        shown = np.where(kind < self.config.hidden + self.config.random, anything, tokens_RL)
        shown = np.where(kind < self.config.hidden, self.mask, shown)
        return np.where(chosen_RL, shown, tokens_RL), np.where(chosen_RL, tokens_RL, IGNORED)

    def _words(self, tokens_L: np.ndarray, choice_L: np.ndarray, count: int) -> np.ndarray:
        """``count`` tokens of a row: whole words in the order of ``choice``; only where no word that is left is short
        enough for the rest, the beginning of one."""
        assert self.edges is not None
        goes_on, open_end = self.edges
        begins = np.ones(len(tokens_L), bool)
        begins[1:] = ~(goes_on[tokens_L[1:]] & open_end[tokens_L[:-1]])
        starts = np.flatnonzero(begins)
        lengths = np.diff(np.append(starts, len(tokens_L)))
        order = np.argsort(choice_L[starts], kind="stable")
        taken = int(np.searchsorted(np.cumsum(lengths[order]), count, side="right"))
        words, rest = list(order[:taken]), count - int(lengths[order[:taken]].sum())
        for word in order[taken:]:
            if rest and lengths[word] <= rest and choice_L[starts[word]] < 1:
                words.append(word)
                rest -= int(lengths[word])
        chosen = np.zeros(len(tokens_L), bool)
        for word in words:
            chosen[starts[word] : starts[word] + lengths[word]] = True
        left = next((word for word in order if rest and not chosen[starts[word]]), None)
        if left is not None and lengths[left] > rest:
            chosen[starts[left] : starts[left] + rest] = True
        elif rest:
            chosen[np.flatnonzero(~chosen)[:rest]] = True
        return chosen

    def count(self, row_tokens: int) -> int:
        """The targets of a row."""
        return self.config.count(row_tokens)

    def batch(self, batch: Batch, keys_R: np.ndarray, first_R: np.ndarray) -> Batch:
        """A micro-batch with hidden tokens."""
        tokens, targets = batch["tokens"].numpy().copy(), np.full(batch["tokens"].shape, IGNORED)
        rows = len(keys_R)
        if rows:
            tokens[:rows], targets[:rows] = self(tokens[:rows], keys_R, first_R)
        return {**batch, "tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}


class Spans(Noise):
    """Takes spans out of rows, which an encoder–decoder has to say (T5, arXiv:1910.10683, section 3.1.4).

    In each one's place stands a token of its own, which comes before the span in the answer; both sides end
    with the end token, and the answer's input begins with padding. Tokens keep to their documents on both sides.
    """

    def __init__(self, config: SpanNoise, tokenizer: Any, path: str, seed: int, row_tokens: int) -> None:
        self.config, self.seed = config, seed
        self.pad, self.end = chat.token_id(tokenizer, chat.PAD), chat.token_id(tokenizer, chat.END)
        self.marks = np.array(chat.span_ids(tokenizer, path, self.config.spans(row_tokens)))

    def count(self, row_tokens: int) -> int:
        """The targets of a row: what was taken out, the spans' tokens and the end."""
        return self.config.tokens(row_tokens) + self.config.spans(row_tokens) + 1

    def noise(self, width: int, keys_R: np.ndarray, first_R: np.ndarray) -> np.ndarray:
        """Which tokens are taken out (R, L): as many spans of as many tokens in each row.

        What is taken out is cut into spans, and what is left into one part more, at places drawn alike; its first
        and last part may be empty, so that spans begin and end at every place alike.
        """
        tokens, spans = self.config.tokens(width), self.config.spans(width)
        places_RL = first_R[:, None] + np.arange(width)
        drawn = [uniforms(keys_R[:, None], 2 * places_RL + use) for use in (0, 1)]
        out_R = _parts(drawn[0][:, : tokens - 1], tokens, spans)
        left_R = _parts(drawn[1][:, : width - tokens + 1], width - tokens + 2, spans + 1)
        left_R[:, [0, -1]] -= 1
        ends = np.empty((len(keys_R), 2 * spans + 1), np.int64)  # left, out, left, out … left
        ends[:, 0::2], ends[:, 1::2] = left_R, out_R
        inside = (ends.cumsum(1)[:, :, None] <= np.arange(width)).sum(1)
        return np.asarray(inside % 2 == 1)

    def row(self, tokens_L: np.ndarray, out_L: np.ndarray, segments_L: np.ndarray) -> tuple[np.ndarray, ...]:
        """What is read and what is to be said, each with the segments of its tokens."""
        begins = out_L & ~np.concatenate(([False], out_L[:-1]))
        marks = self.marks[np.cumsum(begins) - 1]
        kept = ~out_L | begins
        said, where = np.flatnonzero(out_L), np.flatnonzero(begins[out_L])
        answer = np.insert(tokens_L[said], where, marks[begins])
        of_answer = np.insert(segments_L[said], where, segments_L[begins])
        read, of_read = np.where(begins, marks, tokens_L)[kept], segments_L[kept]
        ended = (np.append(part, last) for part, last in ((read, self.end), (answer, self.end)))
        return (*ended, np.append(of_read, of_read[-1]), np.append(of_answer, of_answer[-1]))

    def batch(self, batch: Batch, keys_R: np.ndarray, first_R: np.ndarray) -> Batch:
        """A micro-batch of rows to read, ``answers`` to go on from, and their targets."""
        tokens, rows = batch["tokens"].numpy(), len(keys_R)
        height, width = tokens.shape
        segments = batch["segments"].numpy() if "segments" in batch else np.ones_like(tokens)
        said = self.count(width)
        read = np.full((height, width - self.config.tokens(width) + self.config.spans(width) + 1), self.pad)
        targets, of_read, of_answer = np.full((height, said), IGNORED), np.ones_like(read), np.ones((height, said), int)
        out = self.noise(width, keys_R, first_R) if rows else np.empty((0, width), bool)
        for n in range(rows):
            read[n], targets[n], of_read[n], of_answer[n] = self.row(tokens[n], out[n], segments[n])
        answers = np.where(targets == IGNORED, self.pad, np.roll(targets, 1, 1))
        answers[:, 0] = self.pad
        made = {"tokens": read, "answers": answers, "targets": targets}
        if "segments" in batch:
            made |= {"segments": of_read, "answer_segments": of_answer}
        whole = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in made.items()}
        return whole | {name: batch[name] for name in ("source",) if name in batch}


def _parts(drawn_RN: np.ndarray, total: int, parts: int) -> np.ndarray:
    """The lengths (R, parts), none 0, of ``total`` things cut where the smallest of the numbers drawn for its
    ``total`` - 1 seams are."""
    seams = np.sort(np.argsort(drawn_RN, 1, kind="stable")[:, : parts - 1], 1) + 1
    rows = len(drawn_RN)
    edges = np.concatenate((np.zeros((rows, 1), int), seams, np.full((rows, 1), total)), 1)
    return np.diff(edges, axis=1)
