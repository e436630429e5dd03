"""What every step after pretraining shares: where it starts from, its rows, its inputs and checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, hash_files
from dataeng.tokens import chat
from dataeng.tokens.tokenizer import load as load_tokenizer
from training import huggingface, parallel, weights
from training.context import Context
from training.data.examples import read_rows
from training.model.assemble import assemble
from training.model.config import ModelConfig
from training.model.decoder import Decoder
from training.settings import TrainerConfig

ANSWERING = ("decoder", "encoder_decoder")  # the kinds of models that answer
_FILES = (".jsonl", ".jsonl.gz", ".json.gz")


def named_files(data: str | Sequence[str]) -> list[str]:
    """The JSONL files that ``data`` names, none where it names a stage."""
    names = [data] if isinstance(data, str) else list(data)
    return names if names and all(name.endswith(_FILES) for name in names) else []


def data_inputs(recipe: Recipe, name: str, data: str | Sequence[str], tables: Sequence[str]) -> list[dict[str, Any]]:
    """The fingerprint's entries for ``data``: hashes of files' contents, or of a stage's tables."""
    if files := named_files(data):
        return [{"file": hashed} for hashed in hash_files(files)]
    if not isinstance(data, str):
        raise UserError(f"{recipe.path}: {name}.data = {json.dumps(list(data))}: several must be .jsonl or .jsonl.gz")
    return [entry for table in tables for entry in stage.stage_inputs(recipe.root, data, name, table)]


def data_rows(recipe: Recipe, name: str, data: str | Sequence[str], table: str) -> list[dict[str, Any]]:
    """The rows of ``data``: of JSONL files, or of a stage's ``table``."""
    if files := named_files(data):
        return read_rows(files)
    manifest = stage.need_manifest(recipe.root, str(data), name)
    paths = stage.table_paths(stage.folder_of(recipe.root, str(data)), manifest, table)
    if not paths:
        raise UserError(f"{name}: its input {data} has no table {table!r}")
    return read_rows(paths)


def model_inputs(recipe: Recipe, name: str, *models: str) -> list[dict[str, Any]]:
    """The fingerprint's entries for the exports that a step starts from."""
    entries: list[dict[str, Any]] = []
    for model in models:
        outside = huggingface.is_folder(model)
        more = huggingface.folder_inputs(model) if outside else stage.stage_inputs(recipe.root, model, name, "export")
        entries += more
    return entries


def check_inputs(
    recipe: Recipe,
    name: str,
    coming: Collection[str],
    models: Sequence[str],
    data: str | Sequence[str],
    tables: Sequence[str],
    kinds: Collection[str] = ("decoder",),
) -> None:
    """Raise UserError where a model or data that a step needs is neither published nor ``coming``, or a model is of
    another kind than ``kinds``."""
    for model in models:
        _check_model(recipe, name, model, coming, kinds)
    if data and not (isinstance(data, str) and data in coming):
        data_inputs(recipe, name, data, tables)


def shape_of(recipe: Recipe, name: str, model: str, coming: Collection[str]) -> ModelConfig:
    """The shape of a model that is there, or of one that a step of this run will make."""
    if model not in coming:
        return huggingface.read_config(huggingface.export_of(recipe.root, model, name))[0]
    config = recipe.step(model)
    begin: str | ModelConfig = getattr(config, "start", None) or config.model
    return shape_of(recipe, name, begin, coming) if isinstance(begin, str) else begin


def _check_model(recipe: Recipe, name: str, model: str, coming: Collection[str], kinds: Collection[str]) -> None:
    """Raise UserError where ``model`` is none of ``kinds`` that can be started from."""
    if (kind := shape_of(recipe, name, model, coming).kind) not in kinds:
        wanted = " or an ".join(kinds)
        raise UserError(
            f"{recipe.path}: {name}.model = {json.dumps(model)}: is an {kind}: a step {recipe.kind(name)!r} needs a "
            f"{wanted}"
        )
    if model not in coming and huggingface.is_folder(model):
        folder = huggingface.export_of(recipe.root, model, name)
        huggingface.check_weights(folder)
        huggingface.check_tokenizer(folder)


def check_room(recipe: Recipe, name: str, model: str, new_tokens: int, coming: Collection[str]) -> None:
    """Raise UserError where answers of that many tokens leave no room for a prompt."""
    context = shape_of(recipe, name, model, coming).context
    if new_tokens >= context:
        raise UserError(
            f"{recipe.path}: {name}.new_tokens = {new_tokens}: leaves no room for a prompt: {model} has a context of "
            f"{context} tokens"
        )


def check_scores(recipe: Recipe, name: str, judge: str, coming: Collection[str]) -> None:
    """Raise UserError where a model that is to judge answers has no head that scores them."""
    state = None if judge in coming else huggingface.state_of(huggingface.export_of(recipe.root, judge, name))
    if recipe.kind(judge) != "reward" if state is None else "score.weight" not in state:
        raise UserError(f"{recipe.path}: {name}.reward = {json.dumps(judge)}: is no reward model: it scores nothing")


def check_same_tokenizer(
    recipe: Recipe, name: str, model: str, others: Mapping[str, str | None], coming: Collection[str]
) -> None:
    """Raise UserError where another model, by its key in the recipe, gives tokens other ids than ``model`` does; those
    ``coming`` are left out."""
    ours = None if model in coming else _entries(recipe, model, name)
    for key, other in others.items():
        theirs = _entries(recipe, other, name) if other and other not in coming and ours else None
        if theirs and theirs != ours:
            raise UserError(
                f"{recipe.path}: {name}.{key} = {json.dumps(other)}: its tokenizer is not that of {model}: ids of one "
                "mean nothing to the other"
            )


def _entries(recipe: Recipe, model: str, wanted_by: str) -> dict[str, int]:
    """The tokens of a model that is there, those of chats added, with their ids."""
    tokenizer = load_tokenizer(storage.join(huggingface.export_of(recipe.root, model, wanted_by), "tokenizer.json"))
    chat.complete(tokenizer)
    entries: dict[str, int] = tokenizer.get_vocab()
    return entries


@dataclass(frozen=True)
class Start:
    """A model to start from: its shape, its weights by our own names, read when asked for, its tokenizer."""

    architecture: ModelConfig
    vocabulary: int
    state: Mapping[str, Tensor]
    tokenizer: Any
    tokenizer_path: str
    added: int = 0  # special tokens that its tokenizer lacked

    def model(self) -> nn.Module:
        """A model of that shape and kind, its weights not yet set."""
        return assemble(self.architecture, self.vocabulary)

    def decoder(self) -> Decoder:
        """A decoder of that shape, its weights not yet set."""
        return Decoder(self.architecture, self.vocabulary)


def start(context: Context, model: str) -> Start:
    """Open the export of the step ``model``, or the folder that it is; every rank reads it by itself.

    A tokenizer without the special tokens of chats is given them, and the model rows for them.
    """
    folder = huggingface.export_of(context.recipe.root, model, context.name)
    architecture, vocabulary = huggingface.read_config(folder)
    path = storage.join(folder, "tokenizer.json")
    tokenizer, state = load_tokenizer(path), huggingface.state_of(folder)
    added = chat.complete(tokenizer)
    vocabulary = max(vocabulary, tokenizer.get_vocab_size())
    if added:
        context.log("%d special tokens added to the %d entries of %s", added, tokenizer.get_vocab_size() - added, path)
    return Start(architecture, vocabulary, weights.Grown(state, vocabulary), tokenizer, path, added)


def filled(
    context: Context, make: Callable[[], nn.Module], settings: TrainerConfig, state: Mapping[str, Tensor]
) -> nn.Module:
    """The model that ``make`` gives, laid out over the workers, with the weights of ``state``."""
    return parallel.build(context, make, settings, lambda model: parallel.load_full(model, state))


def frozen(
    context: Context, make: Callable[[], nn.Module], settings: TrainerConfig, state: Mapping[str, Tensor]
) -> nn.Module:
    """The same, never trained: a reference or a judge."""
    return filled(context, make, settings, state).requires_grad_(False).eval()


class Scored(nn.Module):
    """A decoder with one more output: a scalar for each token, from the trunk's last hidden state.

    ``head`` names the scalar's layer in the state: ``score`` for reward models, ``value`` for critics.
    """

    def __init__(self, decoder: Decoder, head: str) -> None:
        super().__init__()
        self.decoder, self.head = decoder, head
        self.add_module(head, nn.Linear(decoder.config.width, 1, bias=False))

    def scalars(self, hidden_BLD: Tensor) -> Tensor:
        """The scalar (B, L) of each hidden state, in fp32 (bf16 has three digits)."""
        weight = self.get_parameter(f"{self.head}.weight")
        with torch.autocast(hidden_BLD.device.type, enabled=False):
            return F.linear(hidden_BLD.float(), weight.float()).squeeze(-1).clone()  # FSDP wants no view


def scored_state(state: Mapping[str, Tensor], head: str, width: int) -> Mapping[str, Tensor]:
    """A decoder's weights under the names of ``Scored``; a new head starts at 0, a published one is kept."""
    names = {f"decoder.{name}": name for name in state if not name.startswith(f"{head}.")}
    key = f"{head}.weight"
    return weights.Renamed(state, names, {key: state[key] if key in state else torch.zeros(1, width)})


def unscored(state: Mapping[str, Tensor], head: str | None = None) -> Mapping[str, Tensor]:
    """A decoder's weights by its own names again; with ``head``, that layer's instead of the vocabulary's."""
    names = {name.removeprefix("decoder."): name for name in state if name.startswith("decoder.")}
    if head:
        names.pop("lm_head.weight", None)
        names[f"{head}.weight"] = f"{head}.weight"
    return weights.Renamed(state, names, {})
