"""AdamW over plain or sharded parameters, clipping by the global norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.settings import TrainerConfig


def adamw(model: nn.Module, settings: TrainerConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101) over what is trained; only matrices decay, not norms and biases."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip(model: nn.Module, bound: float) -> float:
    """Scale the gradients so that their global norm is at most ``bound`` (0: no bound); the norm comes back."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm: Tensor = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if bound > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm)
    return float(norm)
