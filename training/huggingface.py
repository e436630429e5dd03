"""Hugging Face folders of the Llama format: what `transformers` and vLLM load, and what later steps start from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.tokens import chat
from dataeng.tokens.tokenizer import load as load_tokenizer
from training import parallel
from training.context import Context
from training.model.config import ModelConfig
from training.trainer import Result

_HEAD = "lm_head."
_SCORE = "score."  # the head of a reward model


def config_json(config: ModelConfig, vocabulary: int, ids: Mapping[str, int]) -> dict[str, Any]:
    """``config.json``; ``ids`` are those of the end of a turn (`end`) and of padding (`pad`)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": ids["end"],
        "pad_token_id": ids["pad"],
        "torch_dtype": "float32",
    }


def decoder_config(values: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """The decoder's shape and vocabulary from a ``config.json``; raises UserError for another architecture."""
    if values.get("model_type") != "llama":
        raise UserError(f"config.json: model_type {values.get('model_type')!r}: only llama is known")
    theta = values.get("rope_theta") or (values.get("rope_parameters") or {}).get("rope_theta", 10_000.0)
    config = ModelConfig(
        layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        heads=values["num_attention_heads"],
        kv_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        ffn=values["intermediate_size"],
        context=values["max_position_embeddings"],
        rope_theta=theta,
        tied=bool(values.get("tie_word_embeddings", False)),
        norm_eps=values["rms_norm_eps"],
        dropout=0.0,
    )
    return config, int(values["vocab_size"])


def _outer(name: str) -> str:
    return name if name.startswith((_HEAD, _SCORE)) else f"model.{name}"


def state_of(folder: str) -> dict[str, Tensor]:
    """The weights of an export by the decoder's own names, in full."""
    state = safetensors.torch.load(storage.read_bytes(storage.join(folder, "model.safetensors")))
    return {name.removeprefix("model."): value for name, value in state.items()}


def read_config(folder: str) -> tuple[ModelConfig, int]:
    """The decoder's shape and vocabulary of an export."""
    return decoder_config(json.loads(storage.read_bytes(storage.join(folder, "config.json"))))


def export_of(root: str, name: str, wanted_by: str) -> str:
    """The export folder of a published training step; raises UserError where it is not published."""
    stage.need_manifest(root, name, wanted_by)
    return storage.join(stage.folder_of(root, name), "export")


def write(folder: str, state: Mapping[str, Tensor], config: ModelConfig, tokenizer_path: str) -> list[str]:
    """Write an export; ``state`` holds a decoder's full weights by its own names. The paths come back.

    The vocabulary is that of the embedding; a tied head is written once, as the embedding. With a
    ``score.weight`` it is a reward model.
    """
    tokenizer = load_tokenizer(tokenizer_path)
    ids = {"end": chat.token_id(tokenizer, chat.END), "pad": chat.token_id(tokenizer, chat.PAD)}
    names = [name for name in state if not (config.tied and name.startswith(_HEAD))]
    weights = {_outer(name): state[name].to(torch.float32).contiguous() for name in names}
    generation = {
        "eos_token_id": chat.stop_ids(tokenizer),
        "pad_token_id": ids["pad"],
        "do_sample": True,
        "temperature": 1.0,
    }
    about = config_json(config, state["embed_tokens.weight"].shape[0], ids)
    if any(name.startswith(_SCORE) for name in state):
        about |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1}
    texts = {
        "config.json": about,
        "generation_config.json": generation,
        "tokenizer_config.json": chat.tokenizer_config(config.context),
    }
    for name, values in texts.items():
        storage.write_bytes(storage.join(folder, name), (json.dumps(values, indent=2) + "\n").encode())
    storage.write_bytes(storage.join(folder, "tokenizer.json"), storage.read_bytes(tokenizer_path))
    with tempfile.TemporaryDirectory() as temporary:
        local = Path(temporary, "model.safetensors")
        safetensors.torch.save_file(weights, local, metadata={"format": "pt"})
        storage.upload(local, storage.join(folder, local.name))
    return [storage.join(folder, name) for name in (*texts, "tokenizer.json", "model.safetensors")]


def publish(
    context: Context,
    attempt: stage.Attempt,
    model: nn.Module,
    config: ModelConfig,
    tokenizer_path: str,
    result: Result,
    details: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
) -> None:
    """Gather a decoder's weights, write ROOT/NAME/export and publish the step's manifest; all ranks call it."""
    publish_state(context, attempt, parallel.full_state(model), config, tokenizer_path, result, details, more)


def publish_state(
    context: Context,
    attempt: stage.Attempt,
    state: Mapping[str, Tensor],
    config: ModelConfig,
    tokenizer_path: str,
    result: Result,
    details: Mapping[str, Any],
    more: Mapping[str, str] | None = None,
) -> None:
    """Publish full weights that every rank has (merged ones, say); ``more`` are further files by name below export/."""
    if context.first:
        folder = storage.join(context.folder, "export")
        paths = write(folder, state, config, tokenizer_path)
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
