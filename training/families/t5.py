"""T5 (arXiv:1910.10683): relative positions, attention without a scale, answers that begin with padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.families.architecture import Family, Place, activation, same
from training.model.config import ModelConfig

_ACTIVATIONS = {
    "geglu_tanh": "gated-gelu",  # of transformers' T5, the tanh form
    "swiglu": "gated-silu",
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
}


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.inner,
        "num_layers": config.layers,
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "relative_attention_num_buckets": config.buckets,
        "relative_attention_max_distance": config.distance,
        "feed_forward_proj": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "n_positions": config.context,
        "dropout_rate": 0.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        "scale_decoder_outputs": True,
    }


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    layers, tied = values["num_layers"], bool(values.get("tie_word_embeddings", True))
    same(values, num_decoder_layers=layers, scale_decoder_outputs=tied)
    return {
        "kind": "encoder_decoder",
        "layers": layers,
        "width": values["d_model"],
        "heads": values["num_heads"],
        "head_size": values["d_kv"],
        "ffn": values["d_ff"],
        "context": values.get("n_positions", 512),
        "activation": activation(_ACTIVATIONS, "feed_forward_proj", values, "relu"),
        "buckets": values.get("relative_attention_num_buckets", 32),
        "distance": values.get("relative_attention_max_distance", 128),
        "norm_eps": values.get("layer_norm_epsilon", 1e-6),
        "tied": tied,
    }


def _side(side: str, gated: bool) -> dict[str, str | Place]:
    """Names of one side's modules."""
    block, ours = f"{side}.block.#.layer", f"{side}.layers.#"
    last = 2 if side == "decoder" else 1
    names: dict[str, str | Place] = {
        f"{side}.relative": f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias",
        f"{side}.norm": f"{side}.final_layer_norm",
        f"{ours}.input_layernorm": f"{block}.0.layer_norm",
        f"{ours}.cross_layernorm": f"{block}.1.layer_norm",
        f"{ours}.post_attention_layernorm": f"{block}.{last}.layer_norm",
        f"{ours}.mlp.gate_proj": f"{block}.{last}.DenseReluDense.wi_0",
        f"{ours}.mlp.up_proj": f"{block}.{last}.DenseReluDense.{'wi_1' if gated else 'wi'}",
        f"{ours}.mlp.down_proj": f"{block}.{last}.DenseReluDense.wo",
    }
    for name in "qkvo":
        names[f"{ours}.self_attn.{name}_proj"] = f"{block}.0.SelfAttention.{name}"
        names[f"{ours}.cross_attn.{name}_proj"] = f"{block}.1.EncDecAttention.{name}"
    return names


def _names(config: ModelConfig) -> dict[str, str | Place]:
    outer: dict[str, str | Place] = {"embed_tokens": "shared", "lm_head": "lm_head", "score": "score"}
    return {**outer, **_side("encoder", config.gated), **_side("decoder", config.gated)}


T5 = Family(
    "t5",
    {"model": "T5ForConditionalGeneration"},
    {
        "kind": ("encoder_decoder",),
        "norm": ("rms",),
        "positions": ("relative",),
        "activation": tuple(_ACTIVATIONS),
        "bias": (False,),
        "qk_norm": (False,),
        "tied": (True,),
    },
    _names,
    _write,
    _read,
    heads="equal",
)
