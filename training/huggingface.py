"""Hugging Face folders: what `transformers` and vLLM load, and what later steps start from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataeng import stage, storage
from dataeng.cli import Unreachable, UserError
from dataeng.tokens import chat
from dataeng.tokens.tokenizer import load as load_tokenizer
from training import families, weights
from training.context import Context
from training.model.assemble import shapes
from training.model.config import ModelConfig
from training.trainer import Result

_HASHED_AT_ONCE = 8  # files of a model
_SCORE = "score.weight"  # the head of a reward model


def read_config(folder: str) -> tuple[ModelConfig, int]:
    """The model and the vocabulary of a folder; raises UserError where it is none, or of another architecture."""
    return families.model_config(_config_json(folder), storage.join(folder, "config.json"))


def _config_json(folder: str) -> Any:
    path = storage.join(folder, "config.json")
    try:
        return json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        raise UserError(f"{folder}: has no config.json: name a published step, or a model's folder") from None
    except ValueError:
        raise UserError(f"{path}: is no JSON") from None
    except OSError as error:
        raise Unreachable(f"{path}: cannot be read: {error}") from None


def state_of(folder: str) -> weights.Own:
    """The weights of a folder by our own names, each read when it is asked for."""
    values = _config_json(folder)
    config, vocabulary = families.model_config(values, storage.join(folder, "config.json"))
    family = families.by_type(values["model_type"])
    names = [*shapes(config, vocabulary), _SCORE]
    return weights.Own(weights.Stored(folder), names, lambda name: families.place(family, config, name))


def check_weights(folder: str) -> None:
    """Raise UserError where a folder's weights are not those of the model that its ``config.json`` describes."""
    config, vocabulary = read_config(folder)
    state = state_of(folder)
    for name, shape in shapes(config, vocabulary).items():
        if name not in state:
            raise UserError(f"{folder}: the weights have no {name}: is config.json another model's?")
        state.check_type(name)
        if state.shape(name) != shape:
            raise UserError(
                f"{folder}: {name} has the shape {state.shape(name)}, not {shape} as config.json says: "
                "is it another model's?"
            )


def check_tokenizer(folder: str) -> None:
    """Raise UserError where a folder has no tokenizer, or one with more entries than the model has rows."""
    vocabulary = read_config(folder)[1]
    path = storage.join(folder, "tokenizer.json")
    entries = load_tokenizer(path).get_vocab_size()
    if entries > vocabulary:
        raise UserError(f"{path}: has {entries} entries, the model only {vocabulary}: it is another model's")


def is_folder(model: str) -> bool:
    """Whether ``model`` in a recipe is a folder (a path or s3://) and not the name of a step."""
    return not model.isidentifier()


def folder_inputs(folder: str) -> list[dict[str, Any]]:
    """The fingerprint's entries for a folder made elsewhere: names, sizes and hashes (on S3 ETags) of the contents.

    A local folder is read whole: a copy of it, on another node say, is the same model.
    """
    folder = storage.plain(folder).rstrip("/")
    found = storage.list_files(folder)
    names = {entry.path: entry.path.removeprefix(f"{folder}/") for entry in found}
    kinds = ("model", "config.json", "tokenizer.json")
    wanted = [e for e in found if "/" not in names[e.path] and names[e.path].startswith(kinds)]
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        tags = pool.map(lambda entry: entry.tag if storage.is_s3(entry.path) else _hash(entry.path, entry.tag), wanted)
        return [{"folder": [[names[e.path], e.size, tag] for e, tag in zip(wanted, tags, strict=True)]}]


def _hash(path: str, tag: str) -> str:
    """The hash of a local file's contents, kept for its path and ``tag``: large ones take minutes, and drivers, workers
    and those in their place all ask."""
    key = hashlib.sha256(f"{os.path.abspath(path)}\0{tag}".encode()).hexdigest()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "millrace", "hashes", key)
    with suppress(OSError):
        return kept.read_text()
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):
        storage.write_bytes(str(kept), found.encode())
    return found


def export_of(root: str, name: str, wanted_by: str) -> str:
    """The folder of a published training step, or the folder that ``name`` is; raises UserError where there is none."""
    if is_folder(name):
        return storage.plain(name)
    stage.need_manifest(root, name, wanted_by)
    return storage.join(stage.folder_of(root, name), "export")


def _texts(config: ModelConfig, vocabulary: int, tokenizer_path: str, head: str) -> dict[str, bytes]:
    """The small files of an export by name; a tokenizer without our special tokens is given them."""
    tokenizer = load_tokenizer(tokenizer_path)
    chat.complete(tokenizer)
    ids = {"end": chat.token_id(tokenizer, chat.END), "pad": chat.token_id(tokenizer, chat.PAD)}
    generation = {
        "eos_token_id": chat.stop_ids(tokenizer),
        "pad_token_id": ids["pad"],
        "do_sample": True,
        "temperature": 1.0,
    }
    if config.kind == "encoder_decoder":
        generation["decoder_start_token_id"] = ids["pad"]
    about = {
        "config.json": families.config_json(config, vocabulary, ids, head),
        "generation_config.json": generation,
        "tokenizer_config.json": chat.tokenizer_config(config.context, tokenizer),
    }
    files = {name: (json.dumps(values, indent=2) + "\n").encode() for name, values in about.items()}
    return files | {"tokenizer.json": tokenizer.to_str(pretty=True).encode()}


def write(
    folder: str,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer_path: str,
    first: bool = True,
    shard_bytes: int = weights.SHARD_BYTES,
) -> list[str]:
    """Write an export; ``state`` holds a model's full weights by our own names. The paths come back.

    The vocabulary is that of the embedding; a tied head is written once, as the embedding. With a
    ``score.weight`` it is a reward model. Every process calls it, the ``first`` one writes.
    """
    vocabulary = state["embed_tokens.weight"].shape[0]
    wanted = shapes(config, vocabulary)
    head = "score" if _SCORE in state else "model"
    sizes = {name: shape for name, shape in wanted.items() if name in state}
    if head == "score":
        sizes[_SCORE] = (1, config.width)
    family = families.family_of(config)
    names: dict[str, list[tuple[str, bool]]] = {}
    for name in sizes:
        where = families.place(family, config, name)
        names.setdefault(where.name, []).append((name, where.transposed))
    zeros = family.zeros(config) if family else {}
    extra = {name: torch.zeros(shape) for name, shape in zeros.items()}
    paths = weights.save(folder, state, names, sizes, extra, shard_bytes, first)
    if first:
        texts = _texts(config, vocabulary, tokenizer_path, head)
        for name, data in texts.items():
            storage.write_bytes(storage.join(folder, name), data)
        paths = [*(storage.join(folder, name) for name in texts), *paths]
    return paths


def publish(
    context: Context,
    attempt: stage.Attempt,
    model: nn.Module,
    config: ModelConfig,
    tokenizer_path: str,
    result: Result,
    details: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
    shard_bytes: int = weights.SHARD_BYTES,
) -> None:
    """Write a model's weights to ROOT/NAME/export, gathering one at a time, and publish the step's manifest.

    All processes call it.
    """
    state = weights.Gathered(model)
    publish_state(context, attempt, state, config, tokenizer_path, result, details, more, shard_bytes)


def publish_state(
    context: Context,
    attempt: stage.Attempt,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer_path: str,
    result: Result,
    details: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
    shard_bytes: int = weights.SHARD_BYTES,
) -> None:
    """Publish full weights that every process has or gathers; ``more`` are further files by name below export/."""
    if not context.first_does(attempt.unpublish):  # an export is written in place
        return
    folder = storage.join(context.folder, "export")
    paths = write(folder, state, config, tokenizer_path, context.first, shard_bytes)
    if context.first:
        for name, local in (more or {}).items():
            storage.upload(local, storage.join(folder, name))
            paths.append(storage.join(folder, name))
        counts = {"steps": result.step, "samples": result.position, "skipped": result.skipped}
        about = {
            "metrics": result.metrics,
            "resumed_from": result.resumed_from,
            "workers": context.processes,
            "seconds": round(result.seconds, 3),
            **details,
        }
        tables = {"export": stage.file_table(context.folder, paths)}
        attempt.publish(
            attempt.manifest(tables=tables, counts=counts, details=about, versions=stage.library_versions(["torch"]))
        )
        context.log(
            "published after %d steps, %.0f s: %s",
            result.step,
            result.seconds,
            ", ".join(f"{key} {value:.4f}" for key, value in result.metrics.items()),
        )
    context.barrier()
