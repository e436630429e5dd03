"""Token shards of the published tables: what the step `tokens` is told, and what it writes per document."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np
from pydantic import Field

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, Table, runtime
from dataeng.tokens.shards import Writer

SPLITS = ("train", "validation", "test")


class Config(Table):
    """The tables to tokenise, and how long a sample is."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    input: str = Field("publish", description="The stage whose tables train, validation and test are tokenised")
    tokenizer: str = Field("tokenizer", description="The stage that published the tokenizer")
    sample_tokens: int = Field(1024, ge=8, description="Tokens of a sample (S); never changes in a run")
    shard_tokens: int = Field(1 << 27, ge=1, description="Tokens after which a new shard begins")
    batch_documents: int = runtime(64, ge=1, description="Documents that are tokenised at once")


def order_of(root: str, name: str) -> dict[str, Any] | None:
    """The order (`score`, `descending`) in which a stage published its splits, or None: then by id."""
    found: dict[str, Any] | None = stage.need_manifest(root, name, "tokens").config.get("order")
    return found


def encoder(tokenizer_path: str, order: dict[str, Any] | None = None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that turns a batch's `text` into `tokens` (bytes of uint32, end-of-text included), `metadata`
    into `repeat` (how often the document is used), and `scores` into `rank` (its place in ``order``).

    It can be pickled: the tokenizer is loaded where it first runs.
    """
    return _Encoder(tokenizer_path, order)


def _rank(scores: Any, order: dict[str, Any]) -> float:
    """The lower, the earlier: documents without the score come last."""
    score = dict(scores or ()).get(order["score"])
    if score is None or math.isnan(score):
        return math.inf
    return -float(score) if order["descending"] else float(score)


class _Encoder:
    def __init__(self, path: str, order: dict[str, Any] | None) -> None:
        self.path, self.order = path, order
        self.tokenizer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "order": self.order, "tokenizer": None}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from dataeng.tokens import chat
        from dataeng.tokens.tokenizer import load

        if self.tokenizer is None:
            self.tokenizer = load(self.path)
        end = chat.token_id(self.tokenizer, chat.END_OF_TEXT)
        encoded = self.tokenizer.encode_batch_fast([str(text) for text in batch["text"]], add_special_tokens=False)
        tokens = [np.asarray([*item.ids, end], "<u4").tobytes() for item in encoded]
        repeat = np.asarray([int(dict(pairs or ()).get("repeat", 1)) for pairs in batch["metadata"]], np.int64)
        others = {key: value for key, value in batch.items() if key not in ("text", "metadata", "scores")}
        if self.order:
            others["rank"] = np.asarray([_rank(pairs, self.order) for pairs in batch["scores"]])
        return {**others, "repeat": repeat, "tokens": np.asarray(tokens, object)}


class Spool:
    """Encoded documents in a temporary file, put in order when written: results do not depend on who came first."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 — closed by __exit__
        self.index: dict[str, list[tuple[str, float, str, int, int, int]]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def add(self, split: str, row: dict[str, Any]) -> None:
        """Take in one document of a split: its `source`, `rank` (where there is an order), `id`, `repeat`, `tokens`."""
        place, data = self.file.tell(), bytes(row["tokens"])
        self.file.write(data)
        rank, name = float(row.get("rank", 0)), str(row["source"] or "text")
        entry = (name, rank, str(row["id"]), place, len(data), int(row["repeat"]))
        self.index.setdefault(split, []).append(entry)

    def write(self, split: str, folder: str, config: Config, dtype: str) -> tuple[dict[str, Any], list[str]]:
        """Write a split's shards in the order of source, rank and id; its sources and the paths come back.

        A document that is to be repeated comes once in each of as many rounds over its source.
        """
        self.file.flush()
        sources: dict[str, Any] = {}
        paths: list[str] = []
        for name, entries in itertools.groupby(sorted(self.index.get(split, [])), key=lambda entry: entry[0]):
            writer = Writer(storage.join(folder, split, _folder_name(name)), dtype, config.shard_tokens)
            documents = list(entries)
            for before, after in itertools.pairwise(sorted(entry[2] for entry in documents)):
                if before == after:
                    raise stage.Broken(f"tokens: the document {after} came twice")
            for done in range(max(entry[5] for entry in documents)):
                for *_, place, size, repeat in documents:
                    if done < repeat:
                        writer.add(np.frombuffer(os.pread(self.file.fileno(), size, place), "<u4"))
            sources[name] = writer.close(config.sample_tokens).model_dump()
            paths += writer.paths
        return sources, paths


def _folder_name(source: str) -> str:
    """A source's folder: its name, with what is not a letter, digit, dash or dot spelled out in hexadecimal."""
    return "".join(c if c.isalnum() or c in "-_" else f".{ord(c):x}." for c in source)


def begin(recipe: Recipe, name: str) -> stage.Attempt | stage.Manifest:
    """An attempt at the step, or its manifest where it is done; raises UserError without its inputs."""
    config: Config = recipe.step(name)
    inputs = [{**entry, "table": split} for split in SPLITS for entry in _hash(recipe, config.input, name, split)]
    inputs += stage.stage_inputs(recipe.root, config.tokenizer, name)
    order = order_of(recipe.root, config.input)
    inputs += [{"order": order}] if order else []
    return stage.begin(recipe, name, inputs)


def _hash(recipe: Recipe, stage_name: str, name: str, split: str) -> list[dict[str, Any]]:
    return stage.stage_inputs(recipe.root, stage_name, name, split)


def finish(
    attempt: stage.Attempt,
    recipe: Recipe,
    written: dict[str, tuple[dict[str, Any], list[str]]],
    vocabulary: int,
    dtype: str,
) -> stage.Manifest:
    """Publish what ``write_split`` wrote for each split; raises UserError where no sample came of `train`."""
    config: Config = recipe.step(attempt.stage)
    tables, counts, splits = {}, {}, {}
    for split, (sources, paths) in written.items():
        for source in sources.values():
            for shard in source["shards"]:
                shard["path"] = attempt.relative(shard["path"])
        splits[split] = sources
        tables[split] = stage.file_table(attempt.folder, paths)
        counts[f"{split}_documents"] = sum(source["documents"] for source in sources.values())
        counts[f"{split}_tokens"] = sum(source["tokens"] for source in sources.values())
    if not sum(source["samples"] for source in splits["train"].values()):
        raise UserError(
            f"{attempt.stage}: the table train holds {counts['train_tokens']} tokens, less than one "
            f"sample of {config.sample_tokens}: give more text or a smaller sample_tokens"
        )
    entry = stage.stage_inputs(recipe.root, config.tokenizer, attempt.stage)[0]
    details = {
        "dtype": dtype,
        "vocabulary": vocabulary,
        "sample_tokens": config.sample_tokens,
        "tokenizer": config.tokenizer,
        "tokenizer_hash": entry["hash"],
        "splits": splits,
    }
    return attempt.publish(attempt.manifest(tables=tables, counts=counts, details=details))
