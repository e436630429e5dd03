"""What an architecture of transformers is: how its ``config.json`` reads, and how its weights are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from training.model.config import ModelConfig, RopeScaling


class Place(NamedTuple):
    """Where a folder keeps one of our tensors: ``part`` of ``parts`` cut along the outputs of tensor ``name``,
    stored ``transposed``; to be added to it, the first row of the sibling tensor ``plus``."""

    name: str
    part: int = 0
    parts: int = 1
    transposed: bool = False
    plus: str = ""


class Family(NamedTuple):
    """An architecture. ``wants``: values of our fields that it stands for, the first one being what it is known by."""

    model_type: str
    classes: dict[str, str]  # for "model" (with its head) and "score" (a reward model)
    wants: dict[str, tuple[Any, ...]]
    names: Callable[[ModelConfig], Mapping[str, str | Place]]  # of modules; # stands for a layer's number
    write: Callable[[ModelConfig], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    heads: Literal["any", "equal", "plain"] = "plain"  # equal: as many key heads; plain: of width / heads each, too
    zeros: Callable[[ModelConfig], dict[str, tuple[int, ...]]] = lambda config: {}  # more tensors that it wants, of 0
    lacks: Callable[[ModelConfig], list[str]] = lambda config: []  # what else it would have otherwise, as our settings


def write_rope(config: ModelConfig) -> dict[str, Any]:
    """RoPE in the words of transformers 4 (two keys) and 5 (one)."""
    scaling = config.rope_scaling
    if scaling is None:
        return {
            "rope_theta": config.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        }
    values: dict[str, Any] = {"rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type != "linear":
        values["original_max_position_embeddings"] = scaling.original_context
    if scaling.type == "llama3":
        values |= {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    if scaling.type == "yarn":
        values |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
        more = {key: getattr(scaling, key) for key in ("attention_factor", "mscale", "mscale_all_dim")}
        values |= {key: value for key, value in more.items() if value is not None}
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": values,
        "rope_parameters": {**values, "rope_theta": config.rope_theta},
    }


def read_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields of rotary positions; raises ValueError for a form that is not known."""
    found = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    kind = found.get("rope_type", found.get("type", "default"))
    theta = found.get("rope_theta") or values.get("rope_theta") or 10_000.0
    if float(found.get("partial_rotary_factor", values.get("partial_rotary_factor") or 1.0)) != 1.0:
        raise ValueError("partial_rotary_factor: only whole heads are turned here")
    if kind in ("default", "dynamic"):  # dynamic changes nothing within max_position_embeddings
        return {"rope_theta": theta}
    if kind not in ("linear", "llama3", "yarn"):
        raise ValueError(f"rope_type {kind!r}: linear, llama3 and yarn are known")
    context = found.get("original_max_position_embeddings") or values.get("original_max_position_embeddings")
    names = {"low_freq_factor": "low_frequency_factor", "high_freq_factor": "high_frequency_factor"}
    names |= {
        key: key for key in ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")
    }
    scaling: dict[str, Any] = {ours: found[key] for key, ours in names.items() if found.get(key) is not None}
    factor: Any = found.get("factor")
    if factor is None and context:
        factor = values["max_position_embeddings"] / context
    if kind != "linear":
        scaling["original_context"] = context or values["max_position_embeddings"]
    return {"rope_theta": theta, "rope_scaling": RopeScaling(type=kind, factor=factor, **scaling)}


def same(values: Mapping[str, Any], **wanted: Any) -> None:
    """Raise ValueError where a key of a ``config.json`` is there with another value than the one we compute with."""
    for key, value in wanted.items():
        if key in values and values[key] != value and not (not values[key] and not value):
            raise ValueError(f"{key} = {values[key]!r}: only {value!r} is known")


def activation(table: Mapping[str, str], key: str, values: Mapping[str, Any], default: str) -> str:
    """Our name of the activation that ``values[key]`` names, by a table from our names to theirs."""
    found = values.get(key, default)
    for mine, theirs in table.items():
        if theirs == found or (found == "gelu_pytorch_tanh" and mine == "gelu_tanh"):
            return mine
    raise ValueError(f"{key} {found!r}: {', '.join(table.values())} are known")
