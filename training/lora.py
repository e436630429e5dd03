"""Low-rank adapters (LoRA, arXiv:2106.09685): only they are trained; merged they cost nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dataeng.cli import UserError
from dataeng.recipe import Table
from training.weights import Renamed

# R rank, I inputs, O outputs


# Every matrix of a block; a model whose feed-forward layer is not gated lacks one of them.
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = ("embed_tokens", "lm_head")


class Lora(Table):
    """Settings of the adapters; ``targets`` are names of linear layers, as PEFT calls them."""

    rank: int = Field(8, ge=1, description="Rank of each update")
    alpha: float = Field(16.0, gt=0, description="Updates are scaled by alpha / rank (arXiv:2106.09685, 4.1)")
    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Layers that get an adapter, by the last part of their names; by default every matrix of a block",
    )

    @field_validator("targets")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if unknown := sorted(set(value or ()) - set(_MATRICES)):
            raise ValueError(f"no layer of a block is called {', '.join(unknown)}: {', '.join(_MATRICES)} are")
        return value

    @property
    def scale(self) -> float:
        """What updates are multiplied by."""
        return self.alpha / self.rank


class LoraLinear(nn.Linear):
    """A frozen linear layer with an adapter: x Wᵀ + scale · (x Aᵀ) Bᵀ. ``weight`` keeps its name."""

    def __init__(self, base: nn.Linear, lora: Lora) -> None:
        more: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, **more)
        self.weight, self.bias = base.weight, base.bias
        self.lora_A = nn.Linear(base.in_features, lora.rank, bias=False, **more)
        self.lora_B = nn.Linear(lora.rank, base.out_features, bias=False, **more)
        self.scale = lora.scale

    def forward(self, input: Tensor) -> Tensor:
        """The frozen layer's output plus the adapter's."""
        update: Tensor = self.lora_B(self.lora_A(input))
        return F.linear(input, self.weight, self.bias) + self.scale * update


def add_adapters(model: nn.Module, lora: Lora, vocabulary: bool = False) -> nn.Module:
    """Give every targeted layer an adapter and freeze all else, in place; with ``vocabulary`` not embedding and head.

    Raises UserError for a target that no layer is called.
    """
    model.requires_grad_(False)
    for name, child in model.named_children():
        if vocabulary and name in VOCABULARY:
            child.requires_grad_(True)
    targets, missing = lora.targets or _MATRICES, set(lora.targets or ())
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in targets and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, lora))
                missing.discard(name)
    if missing:
        raise UserError(f"lora.targets: the model has no linear layer called {', '.join(sorted(missing))}")
    return model


def initial(name: str, shape: torch.Size, seed: int) -> Tensor:
    """An adapter's first weights: A uniform within 1/√I, B zero, so that training starts from the model."""
    if not name.endswith("lora_A.weight"):
        return torch.zeros(shape)
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(shape[1])


def with_adapters(state: Mapping[str, Tensor], model: nn.Module, seed: int) -> Mapping[str, Tensor]:
    """The weights of a plain model, completed by the first weights of ``model``'s adapters."""
    added = {
        name: initial(name, parameter.shape, seed)
        for name, parameter in model.named_parameters()
        if ".lora_" in name and name not in state
    }
    return Renamed(state, {name: name for name in state}, added)


class Merged(Mapping[str, Tensor]):
    """The weights of a plain model that computes what the adapted one does: W + scale · B A, in fp64.

    Each is made when it is asked for (``state`` may gather).
    """

    def __init__(self, state: Mapping[str, Tensor], lora: Lora) -> None:
        self.state, self.scale = state, lora.scale
        self.names = [name for name in state if ".lora_" not in name]

    def __getitem__(self, name: str) -> Tensor:
        weight, layer = self.state[name], name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" not in self.state:
            return weight
        down_RI, up_OR = (self.state[f"{layer}.lora_{part}.weight"].double() for part in "AB")
        return (weight.double() + self.scale * (up_OR @ down_RI)).to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.state and ".lora_" not in str(name)


def adapter_state(state: Mapping[str, Tensor], vocabulary: bool = False) -> dict[str, Tensor]:
    """The adapters alone, under the names of PEFT's files (``base_model.model.model.layers…``); with ``vocabulary``
    the embedding and the head, which were trained beside them."""
    wholes = {f"{name}.weight" for name in VOCABULARY if vocabulary}
    named = {name: name if name.startswith("lm_head.") else f"model.{name}" for name in state}
    return {f"base_model.model.{named[name]}": state[name] for name in state if ".lora_" in name or name in wholes}


def adapter_config(lora: Lora, base: str, whole: Sequence[str] = ()) -> dict[str, Any]:
    """PEFT's ``adapter_config.json``; ``base`` names the model that the adapters belong to, ``whole`` layers that were
    trained beside them."""
    return {
        **({"modules_to_save": list(whole)} if whole else {}),
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": sorted(lora.targets or _MATRICES),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
