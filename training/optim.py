"""Which optimiser steps which parameters, at which rates; clipping by the global norm.

Parameters may be plain or sharded (DTensor): updates by element work on the local shards, norms are global.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training import stages
from training.optimizers import Lamb, Muon, Sgd
from training.settings import TrainerConfig

_EPSILON = 1e-6  # that clip_grads_with_norm_ adds to the norm
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_FIRST = re.compile(r"(?:^|\.)(?:embed_\w+|wte|wpe)\.")  # embeddings, which stand before layer 0


def make(model: nn.Module, settings: TrainerConfig) -> torch.optim.Optimizer:
    """The optimiser that ``settings.optimizer`` names over what is trained, in the groups of ``groups``."""
    parts = groups(model, settings)
    rate, betas, epsilon = settings.learning_rate, settings.betas, settings.epsilon
    if settings.optimizer == "sgd":
        return Sgd(parts, rate, betas[0])
    if settings.optimizer == "lamb":
        return Lamb(parts, rate, betas, epsilon)
    if settings.optimizer == "muon":
        low = settings.precision != "fp32"
        return Muon(parts, rate, betas, epsilon, settings.momentum, torch.bfloat16 if low else torch.float32)
    return torch.optim.AdamW(parts, lr=rate, betas=betas, eps=epsilon, fused=_can_fuse(parts))


def groups(model: nn.Module, settings: TrainerConfig) -> list[dict[str, Any]]:
    """Parameter groups: those that decay (matrices) and those that do not, by layer where rates differ by layer.

    ``scale`` multiplies the schedule's rate: ``layer_decay`` to the number of layers above (BERT's fine-tuning
    by layers, arXiv:2006.05987 and ELECTRA). ``hidden`` marks the matrices inside blocks, which Muon steps.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    stage = stages.of(model)
    layers = stage.blocks if stage else 1 + max((_layer(name) or 0 for name, _ in trained), default=0)
    found: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in trained:
        matrix, layer = parameter.ndim >= 2, _layer(name)
        depth = 0 if _FIRST.search(name) else layers + 1 if layer is None else layer + 1
        scale = settings.layer_decay ** (layers + 1 - depth)
        hidden = settings.optimizer == "muon" and matrix and layer is not None
        empty = {
            "params": [],
            "weight_decay": settings.weight_decay if matrix else 0.0,
            "hidden": hidden,
            "scale": scale,
        }
        found.setdefault((matrix, hidden, scale), empty)["params"].append(parameter)
    return [found[key] for key in sorted(found, reverse=True)]


def _layer(name: str) -> int | None:
    """The number of the block that a parameter belongs to."""
    match = _LAYER.search(name)
    return int(match[1]) if match else None


def _can_fuse(parts: list[dict[str, Any]]) -> bool:
    kinds = {parameter.device.type for part in parts for parameter in part["params"]}
    return kinds <= {"cpu", "cuda"}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, each by its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def clip(model: nn.Module, bound: float) -> float:
    """Scale the gradients so that their global norm is at most ``bound`` (0: no bound); the norm comes back."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    stage = stages.of(model)
    counted = stage.owned(model) if stage else parameters
    norm: Tensor = torch.nn.utils.get_total_norm([p.grad for p in counted if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if stage:
        norm = stage.norm(norm)
    length = float(norm)
    if bound > 0 and not length < bound - _EPSILON:  # those within it are not touched; NaN is passed on
        torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm)
    return length
