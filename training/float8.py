"""Matrix products of blocks in float8, by torchao (the package is optional: ``pip install millrace[float8]``).

Inputs, weights and gradients are scaled by their largest entry at every product (dynamic, tensorwise; E4M3, and E5M2
for gradients); all else is as in bf16, and master weights stay fp32.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from dataeng.cli import UserError
from dataeng.recipe import Recipe
from training.settings import TrainerConfig

_LEAST = (8, 9)  # compute capability of the first GPUs with float8: Ada, Hopper


def check(recipe: Recipe, name: str, config: TrainerConfig) -> None:
    """Raise UserError where the step ``name`` wants float8 and cannot have it.

    A driver without a GPU knows only whether its workers are given some: those look again.
    """
    if config.precision != "float8":
        return
    where = f'{recipe.path}: {name}.precision = "float8"'
    if importlib.util.find_spec("torchao") is None:
        raise UserError(f"{where}: the package torchao is not installed: install it (pip install torchao), or set bf16")
    if config.mesh.tensor > 1:
        raise UserError(f"{where}: not with mesh.tensor = {config.mesh.tensor}: set bf16, or mesh.tensor = 1")
    if getattr(config, "lora", None) is not None:
        raise UserError(f"{where}: adapters beside frozen weights are trained in bf16: set that")
    if torch.cuda.is_available() or not recipe.step("train").gpus_per_worker:
        check_device(where)


def check_device(where: str, device: torch.device | None = None) -> None:
    """Raise UserError where a GPU, by default the current one, does not multiply in float8."""
    if not torch.cuda.is_available():
        raise UserError(f"{where}: needs a GPU with float8 (Ada, Hopper or later), and workers have none: set bf16")
    if (found := torch.cuda.get_device_capability(device)) < _LEAST:
        title = torch.cuda.get_device_name(device)
        raise UserError(f"{where}: {title} (compute capability {found[0]}.{found[1]}) has no float8: set bf16")


def _is_converted(module: nn.Module, name: str) -> bool:
    """Linear layers of blocks whose sides are multiples of 16, as the hardware wants; neither head nor adapters."""
    if not isinstance(module, nn.Linear) or type(module) is not nn.Linear or "layers." not in name or ".lora_" in name:
        return False
    return module.in_features % 16 == 0 and module.out_features % 16 == 0


def convert(model: nn.Module, emulate: bool = False) -> nn.Module:
    """Let a model's blocks multiply in float8, in place; names and weights stay. Before FSDP and compilation.

    ``emulate``: computed in fp32 from rounded numbers, on any device (for tests).
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    # The inner dimension of a weight's gradient is the number of tokens, which may be no multiple of 16.
    config = Float8LinearConfig(pad_inner_dim=True, emulate=emulate)
    made: nn.Module = convert_to_float8_training(model, module_filter_fn=_is_converted, config=config)
    return made
