"""ModernBERT (arXiv:2412.13663): rotary positions, gated layers without biases, most blocks with a local window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.families.architecture import Family, Place, read_rope, same, write_rope
from training.model.config import ModelConfig


def _write(config: ModelConfig) -> dict[str, Any]:
    whole = write_rope(config)["rope_parameters"]
    local = {"rope_type": "default", "rope_theta": config.local_theta}
    every = config.global_every if config.local_window else 1
    types = ["sliding_attention" if number % every else "full_attention" for number in range(config.layers)]
    return {
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context,
        "hidden_activation": "gelu",
        "norm_eps": config.norm_eps,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "classifier_bias": False,
        "decoder_bias": True,
        "layer_types": types,
        "global_attn_every_n_layers": every,
        "local_attention": config.local_window or config.context,
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_theta,
        "rope_parameters": {"full_attention": whole, "sliding_attention": local},
        "tie_word_embeddings": config.tied,
    }


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    same(values, hidden_activation="gelu", classifier_activation="gelu", norm_bias=False, attention_bias=False)
    same(values, mlp_bias=False, classifier_bias=False, decoder_bias=True)
    layers = values["num_hidden_layers"]
    every = values.get("global_attn_every_n_layers", 3)
    if types := values.get("layer_types"):
        every = next((n for n in range(1, layers) if types[n] == "full_attention"), layers)
        if types != ["sliding_attention" if n % every else "full_attention" for n in range(layers)]:
            raise ValueError("layer_types: every so many layers must be full_attention, the first one too")
    rope = values.get("rope_parameters") or {}
    whole = rope.get("full_attention") or {"rope_theta": values.get("global_rope_theta", 160_000.0)}
    local = rope.get("sliding_attention") or {"rope_theta": values.get("local_rope_theta", 10_000.0)}
    same(local, rope_type="default")
    return {
        "kind": "encoder",
        "layers": layers,
        "width": values["hidden_size"],
        "heads": values["num_attention_heads"],
        "ffn": values["intermediate_size"],
        "context": values["max_position_embeddings"],
        "norm_eps": values.get("norm_eps", 1e-5),
        "tied": bool(values.get("tie_word_embeddings", True)),
        "global_every": every,
        "local_window": values.get("local_attention", 128) if every > 1 else None,
        "local_theta": local["rope_theta"],
        **read_rope({**values, "rope_parameters": whole}),
    }


def _lacks(config: ModelConfig) -> list[str]:
    """transformers looks for ``truncate`` where ModernBERT, with angles by layer, does not have it."""
    scaling = config.rope_scaling
    return ["rope_scaling.truncate = true"] if scaling and scaling.type == "yarn" and not scaling.truncate else []


_LAYER = "model.layers.#"
_NAMES: dict[str, str | Place] = {
    "embed_tokens": "model.embeddings.tok_embeddings",
    "embed_norm": "model.embeddings.norm",
    "layers.#.input_layernorm": f"{_LAYER}.attn_norm",
    **{f"layers.#.self_attn.{name}_proj": Place(f"{_LAYER}.attn.Wqkv", part, 3) for part, name in enumerate("qkv")},
    "layers.#.self_attn.o_proj": f"{_LAYER}.attn.Wo",
    "layers.#.post_attention_layernorm": f"{_LAYER}.mlp_norm",
    "layers.#.mlp.gate_proj": Place(f"{_LAYER}.mlp.Wi", 0, 2),
    "layers.#.mlp.up_proj": Place(f"{_LAYER}.mlp.Wi", 1, 2),
    "layers.#.mlp.down_proj": f"{_LAYER}.mlp.Wo",
    "norm": "model.final_norm",
    "head_dense": "head.dense",
    "head_norm": "head.norm",
    "lm_head": "decoder",
    "score": "score",
}

MODERNBERT = Family(
    "modernbert",
    {"model": "ModernBertForMaskedLM"},
    {
        "kind": ("encoder",),
        "norm_after": (False,),
        "norm": ("layer",),
        "positions": ("rotary",),
        "activation": ("geglu",),
        "bias": (False,),
        "qk_norm": (False,),
    },
    lambda config: _NAMES,
    _write,
    _read,
    lacks=_lacks,
)
