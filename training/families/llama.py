"""Llama, and Qwen3, which adds a norm of each head's queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.families.architecture import Family, Place, read_rope, same, write_rope
from training.model.config import ModelConfig


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "attention_bias": config.bias,
        "attention_dropout": 0.0,
        **write_rope(config),
    }


def _read_llama(values: Mapping[str, Any]) -> dict[str, Any]:
    bias = bool(values.get("attention_bias"))
    same(values, hidden_act="silu", mlp_bias=bias, use_sliding_window=False)
    return {
        "layers": values["num_hidden_layers"],
        "width": values["hidden_size"],
        "heads": values["num_attention_heads"],
        "kv_heads": values.get("num_key_value_heads"),
        "head_size": values.get("head_dim"),
        "ffn": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "tied": bool(values.get("tie_word_embeddings", False)),
        "norm_eps": values["rms_norm_eps"],
        "bias": bias,
        **read_rope(values),
    }


_LLAMA: dict[str, str | Place] = {
    "norm": "model.norm",
    "embed_tokens": "model.embed_tokens",
    "layers.#.*": "model.layers.#.*",
    "lm_head": "lm_head",
    "score": "score",
}


def _lacks(config: ModelConfig) -> list[str]:
    """transformers asks it of Llama, also where head_dim is given (configuration_llama.py); not of Qwen3."""
    return [f"heads = a divisor of width {config.width}"] if config.width % config.heads else []


LLAMA = Family(
    "llama",
    {"model": "LlamaForCausalLM", "score": "LlamaForSequenceClassification"},
    {
        "kind": ("decoder",),
        "norm": ("rms",),
        "positions": ("rotary",),
        "activation": ("swiglu",),
        "qk_norm": (False,),
    },
    lambda config: _LLAMA,
    lambda config: _write_llama(config) | {"mlp_bias": config.bias},
    _read_llama,
    heads="any",
    lacks=_lacks,
)

QWEN3 = Family(
    "qwen3",
    {"model": "Qwen3ForCausalLM", "score": "Qwen3ForSequenceClassification"},
    {
        "qk_norm": (True,),
        "kind": ("decoder",),
        "norm": ("rms",),
        "positions": ("rotary",),
        "activation": ("swiglu",),
        "bias": (False,),
    },
    lambda config: _LLAMA,
    lambda config: _write_llama(config) | {"use_sliding_window": False},
    lambda values: _read_llama(values) | {"qk_norm": True},
    heads="any",
)
