"""Supervised data: reading rows of many shapes, encoding them with masks, packing them into rows.

A sample is one example. Packing is a pure function of the global batch, done before it is cut by rank.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataeng import storage
from dataeng.cli import UserError
from dataeng.tokens import chat
from training.data.order import key_of, permute

# R rows, L tokens of a row
Messages = list[dict[str, str]]
Batch = dict[str, Tensor]
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def read_rows(paths: str | Sequence[str]) -> list[dict[str, Any]]:
    """The rows of JSONL files, gzipped or not, local or on S3.

    Raises UserError naming file and line for what is no JSON object, and for files without rows.
    """
    rows: list[dict[str, Any]] = []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            data = storage.read_bytes(path)
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file") from None
        except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        rows += [_row(line, f"{path}:{at}") for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise UserError(f"{paths}: holds no rows")
    return rows


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}: is no JSON object")
    return row


def _turns(values: Iterable[Mapping[str, str]]) -> Messages:
    """Messages in either naming: role/content or from/value."""
    turns = []
    for value in values:
        role = str(value.get("role", value.get("from", "")))
        turns.append({"role": _SPEAKERS.get(role, role), "content": str(value.get("content", value.get("value", "")))})
    return turns


def _dialogue(text: str) -> Messages:
    """Messages of a transcript whose turns begin with "Human:" and "Assistant:" (hh-rlhf's)."""
    parts = ("\n\n" + text.strip()).split("\n\nHuman:")[1:]
    turns: Messages = []
    for part in parts:
        asked, *answers = part.split("\n\nAssistant:")
        turns.append({"role": "user", "content": asked.strip()})
        turns += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return turns


def instruction_of(row: Mapping[str, Any]) -> str | None:
    """The instruction of a row with its input below it, or None where the row has none."""
    if "question" in row:
        return str(row["question"])
    if "instruction" not in row:
        return None
    more = str(row.get("input") or "")
    return f"{row['instruction']}\n{more}" if more else str(row["instruction"])


def messages_of(row: Mapping[str, Any]) -> Messages:
    """The chat of a supervised row; raises UserError for a row of an unknown shape.

    Known: ``messages`` or ``conversations``; ``instruction``, ``input``, ``output``; the same with
    ``instances`` (self-instruct, the first is taken); ``question`` and ``answer`` (GSM8K).
    """
    for key in ("messages", "conversations"):
        if isinstance(row.get(key), list):
            return _turns(row[key])
    if row.get("instances"):
        row = {**row, **row["instances"][0]}
    asked, answer = instruction_of(row), row.get("output", row.get("answer"))
    if asked is None or answer is None:
        raise UserError(f"a row with the keys {sorted(row)}: needs messages, instruction and output, or question")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": str(answer)}]


class Pair(NamedTuple):
    """A comparison: two chats that differ in their last answer."""

    chosen: Messages
    rejected: Messages


def pair_of(row: Mapping[str, Any]) -> Pair:
    """The pair of a preference row; raises UserError for a row of an unknown shape.

    Known: ``prompt`` (text or messages) with ``chosen`` and ``rejected`` (text, message or messages);
    ``conversations`` with them (LLaMA-Factory); two whole transcripts (hh-rlhf).
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if chosen is None or rejected is None:
        raise UserError(f"a row with the keys {sorted(row)}: needs chosen and rejected")
    prompt = row.get("prompt", row.get("conversations", instruction_of(row)))
    if prompt is None:
        return Pair(*(_dialogue(side) if isinstance(side, str) else _turns(side) for side in (chosen, rejected)))
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else _turns(prompt)
    return Pair([*before, *_answers(chosen)], [*before, *_answers(rejected)])


def _answers(side: Any) -> Messages:
    if isinstance(side, str):
        return [{"role": "assistant", "content": side}]
    return _turns([side] if isinstance(side, Mapping) else side)


class Example(NamedTuple):
    """Token ids, and for each whether the model has to produce it."""

    ids: list[int]
    mask: list[bool]


class EncodedPair(NamedTuple):
    """A comparison's two sides; the masks cover the last answer of each."""

    chosen: Example
    rejected: Example


def encode_examples(tokenizer: Any, chats: Iterable[Messages], context: int) -> tuple[list[Example], int]:
    """Chats as examples of at most ``context`` tokens, and how many were longer and left out.

    A cut answer would teach to stop nowhere, so long ones are not cut. Raises UserError where no
    example is left, or none has an answer.
    """
    made = [Example(*chat.encode_chat(tokenizer, messages)) for messages in chats]
    kept = [example for example in made if len(example.ids) <= context and any(example.mask[1:])]
    if not kept:
        raise UserError(
            f"{len(made)} examples: none has an answer and fits into {context} tokens: raise the model's context"
        )
    return kept, len(made) - len(kept)


def bucket(length: int, widths: Sequence[int]) -> int:
    """The least of the sorted ``widths`` that holds ``length``; the greatest where none does."""
    return next((width for width in widths if width >= length), widths[-1])


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Rows of example indices, each row at most ``width`` tokens: first fit, longest first, ties by index.

    A pure function of the lengths. Raises ValueError for a length over ``width``.
    """
    rows: list[list[int]] = []
    space: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[index] > width:
            raise ValueError(f"example {index} has {lengths[index]} tokens, a row {width}")
        at = next((row for row, free in enumerate(space) if free >= lengths[index]), len(rows))
        if at == len(rows):
            rows.append([])
            space.append(width)
        rows[at].append(index)
        space[at] -= lengths[index]
    return rows


def collate(examples: Sequence[Example], rows: Sequence[Sequence[int]], width: int, pad: int, height: int) -> Batch:
    """``height`` rows of ``width`` tokens (R, L); each example is a segment with positions from 0.

    ``targets`` follow ``tokens`` by one, ``mask`` says which targets count. A target is the next token
    of the same example; rows past those given, and what is left of each, are padding (segment 0).
    """
    shape = (height, width)
    tokens, targets = torch.full(shape, pad), torch.full(shape, pad)
    mask, positions = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64)
    segments = torch.zeros(shape, dtype=torch.int64)
    for row, members in enumerate(rows):
        start = 0
        for segment, index in enumerate(members, 1):
            ids, wanted = examples[index]
            end = start + len(ids)
            tokens[row, start:end] = torch.tensor(ids)
            targets[row, start : end - 1] = torch.tensor(ids[1:])
            mask[row, start : end - 1] = torch.tensor(wanted[1:], dtype=torch.bool)
            positions[row, start:end] = torch.arange(len(ids))
            segments[row, start:end] = segment
            start = end
    return {"tokens": tokens, "targets": targets, "mask": mask, "positions": positions, "segments": segments}


def order(seed: int, name: str, start: int, count: int, size: int) -> list[int]:
    """The indices of global samples [start, start + count) of ``size`` examples: each epoch permuted anew."""
    indices: list[int] = []
    while len(indices) < count:
        epoch, first = divmod(start + len(indices), size)
        some = np.arange(first, min(size, first + count - len(indices)))
        indices += permute(some, size, key_of(seed, name, epoch)).tolist()
    return indices
