"""GPT-2: learned positions, LayerNorm and biases; its matrices stand transposed, queries, keys and values in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.families.architecture import Family, Place, activation, same
from training.model.config import ModelConfig

_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.width,
        "n_inner": config.inner,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_positions": config.context,
        "activation_function": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        **{f"{part}_pdrop": 0.0 for part in ("attn", "embd", "resid")},
    }


def _read_gpt2(values: Mapping[str, Any]) -> dict[str, Any]:
    same(values, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return {
        "layers": values["n_layer"],
        "width": values["n_embd"],
        "heads": values["n_head"],
        "ffn": values.get("n_inner") or 4 * values["n_embd"],
        "context": values["n_positions"],
        "activation": activation(_ACTIVATIONS, "activation_function", values, "gelu_new"),
        "norm_eps": values.get("layer_norm_epsilon", 1e-5),
        "tied": bool(values.get("tie_word_embeddings", True)),
        "norm": "layer",
        "positions": "learned",
        "bias": True,
    }


_NAMES: dict[str, str | Place] = {
    "embed_tokens": "transformer.wte",
    "embed_positions": "transformer.wpe",
    "layers.#.input_layernorm": "transformer.h.#.ln_1",
    **{f"layers.#.self_attn.{n}_proj": Place("transformer.h.#.attn.c_attn", i, 3, True) for i, n in enumerate("qkv")},
    "layers.#.self_attn.o_proj": Place("transformer.h.#.attn.c_proj", transposed=True),
    "layers.#.post_attention_layernorm": "transformer.h.#.ln_2",
    "layers.#.mlp.up_proj": Place("transformer.h.#.mlp.c_fc", transposed=True),
    "layers.#.mlp.down_proj": Place("transformer.h.#.mlp.c_proj", transposed=True),
    "norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "score": "score",
}

GPT2 = Family(
    "gpt2",
    {"model": "GPT2LMHeadModel", "score": "GPT2ForSequenceClassification"},
    {
        "positions": ("learned",),
        "kind": ("decoder",),
        "norm": ("layer",),
        "activation": tuple(_ACTIVATIONS),
        "bias": (True,),
        "qk_norm": (False,),
    },
    lambda config: _NAMES,
    _write_gpt2,
    _read_gpt2,
)
