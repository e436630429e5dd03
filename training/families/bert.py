"""BERT: norms after each sum, learned positions, biases; embeddings of the first of two texts are in the positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.families.architecture import Family, Place, activation, same
from training.model.config import ModelConfig

_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context,
        "type_vocab_size": 2,
        "hidden_act": _ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_eps,
        "tie_word_embeddings": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    same(values, is_decoder=False, add_cross_attention=False, position_embedding_type="absolute")
    same(values, tie_word_embeddings=True)
    chosen = activation(_ACTIVATIONS, "hidden_act", values, "gelu")
    if chosen != "gelu":
        raise ValueError(f"hidden_act {values['hidden_act']!r}: the head is computed with gelu")
    return {
        "kind": "encoder",
        "layers": values["num_hidden_layers"],
        "width": values["hidden_size"],
        "heads": values["num_attention_heads"],
        "ffn": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "norm_eps": values.get("layer_norm_eps", 1e-12),
        "activation": chosen,
        "norm": "layer",
        "norm_after": True,
        "positions": "learned",
        "bias": True,
    }


_LAYER = "bert.encoder.layer.#"
_NAMES: dict[str, str | Place] = {
    "embed_tokens": "bert.embeddings.word_embeddings",
    "embed_positions": Place("bert.embeddings.position_embeddings", plus="token_type_embeddings.weight"),
    "embed_norm": "bert.embeddings.LayerNorm",
    "layers.#.self_attn.q_proj": f"{_LAYER}.attention.self.query",
    "layers.#.self_attn.k_proj": f"{_LAYER}.attention.self.key",
    "layers.#.self_attn.v_proj": f"{_LAYER}.attention.self.value",
    "layers.#.self_attn.o_proj": f"{_LAYER}.attention.output.dense",
    "layers.#.input_layernorm": f"{_LAYER}.attention.output.LayerNorm",
    "layers.#.mlp.up_proj": f"{_LAYER}.intermediate.dense",
    "layers.#.mlp.down_proj": f"{_LAYER}.output.dense",
    "layers.#.post_attention_layernorm": f"{_LAYER}.output.LayerNorm",
    "head_dense": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "lm_head.bias": "cls.predictions.bias",
    "score": "score",
}

BERT = Family(
    "bert",
    {"model": "BertForMaskedLM"},
    {
        "norm_after": (True,),
        "kind": ("encoder",),
        "norm": ("layer",),
        "positions": ("learned",),
        "activation": ("gelu",),
        "bias": (True,),
        "qk_norm": (False,),
        "tied": (True,),
        "local_window": (None,),
    },
    lambda config: _NAMES,
    _write,
    _read,
    zeros=lambda config: {"bert.embeddings.token_type_embeddings.weight": (2, config.width)},
)
