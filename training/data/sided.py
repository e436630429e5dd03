"""Supervised data of two sides, for encoder–decoders: a source that is read, and a target that is said.

Every answer of a chat is an example: what came before it, with the answer's turn opened, and its text with its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dataeng.cli import UserError
from dataeng.tokens import chat
from training.data.examples import Messages

# R rows, M tokens of a row that is read, L tokens of one that is said
Batch = dict[str, Tensor]


class Sided(NamedTuple):
    """Token ids of both sides; the target ends with the end token."""

    source: list[int]
    target: list[int]


def sides_of(tokenizer: Any, messages: Messages) -> Iterator[Sided]:
    """An example for every answer of a chat."""
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            ids, said = chat.encode_chat(tokenizer, [message])
            source = chat.encode_prompt(tokenizer, messages[:at])
            yield Sided(source, [token for token, own in zip(ids, said, strict=True) if own])


def encode_sides(tokenizer: Any, chats: Iterable[Messages], context: int) -> tuple[list[Sided], int]:
    """The examples of chats whose sides have at most ``context`` tokens each, and how many were longer and left out.

    Raises UserError where no example is left.
    """
    made = [example for messages in chats for example in sides_of(tokenizer, messages)]
    kept = [example for example in made if max(map(len, example)) <= context]
    if not kept:
        raise UserError(
            f"{len(made)} examples: none has an answer and fits into {context} tokens: raise the model's context"
        )
    return kept, len(made) - len(kept)


def pack_sides(examples: Sequence[Sided], widths: tuple[int, int]) -> list[list[int]]:
    """Rows of example indices, each row's sides at most ``widths``: first fit, longest first, ties by index.

    A pure function of the lengths. Raises ValueError for a side that is longer.
    """
    sizes = [(len(example.source), len(example.target)) for example in examples]
    rows: list[list[int]] = []
    space: list[tuple[int, int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sum(sizes[i]), i)):
        source, target = sizes[index]
        if source > widths[0] or target > widths[1]:
            raise ValueError(f"example {index} has {source} and {target} tokens, a row {widths[0]} and {widths[1]}")
        at = next((row for row, left in enumerate(space) if left[0] >= source and left[1] >= target), len(rows))
        if at == len(rows):
            rows.append([])
            space.append(widths)
        rows[at].append(index)
        space[at] = space[at][0] - source, space[at][1] - target
    return rows


def collate_sides(
    examples: Sequence[Sided], rows: Sequence[Sequence[int]], widths: tuple[int, int], pad: int, height: int
) -> Batch:
    """``height`` rows of both sides, (R, M) and (R, L); each example is a segment on both, 0 is padding.

    ``answers`` are the targets one later, after a padding token; ``mask`` says which ``targets`` count.
    """
    tokens, of_tokens = torch.full((height, widths[0]), pad), torch.zeros((height, widths[0]), dtype=torch.int64)
    targets, of_answers = torch.full((height, widths[1]), pad), torch.zeros((height, widths[1]), dtype=torch.int64)
    answers = targets.clone()
    for row, members in enumerate(rows):
        read = said = 0
        for segment, index in enumerate(members, 1):
            source, target = examples[index]
            here, there = slice(read, read + len(source)), slice(said, said + len(target))
            tokens[row, here], of_tokens[row, here] = torch.tensor(source), segment
            targets[row, there], of_answers[row, there] = torch.tensor(target), segment
            answers[row, there] = torch.tensor([pad, *target[:-1]])
            read, said = here.stop, there.stop
    return {
        "tokens": tokens,
        "segments": of_tokens,
        "answers": answers,
        "answer_segments": of_answers,
        "targets": targets,
        "mask": of_answers > 0,
    }
