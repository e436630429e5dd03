"""Loss scaling for fp16, whose smallest gradients would vanish (arXiv:1710.03740, section 3.2)."""

from __future__ import annotations

import torch
from torch import nn

from training.optimizers import local

_GROW_AFTER = 2000  # finite steps; torch's GradScaler has the same
_START, _MOST = 2.0**16, 2.0**24


class LossScale:
    """A power of two: halved by a step whose gradient is not finite, doubled after 2,000 others. 1 without fp16."""

    def __init__(self, precision: str) -> None:
        self.active = precision == "fp16"
        self.value = _START if self.active else 1.0
        self.good = 0

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return [self.value, self.good]

    def load(self, state: list[float] | None) -> None:
        """Go on from a checkpoint's state."""
        if self.active and state:
            self.value, self.good = float(state[0]), int(state[1])

    def unscale(self, model: nn.Module) -> None:
        """Divide the gradients by the scale, in place and exactly."""
        if self.active:
            found = [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
            torch._foreach_mul_(found, 1.0 / self.value)

    def after(self, finite: bool) -> bool:
        """Adapt to a step; whether a step that was not finite is explained by the scale being too large."""
        if not self.active:
            return finite
        if not finite:
            explained, self.value, self.good = self.value > 1.0, max(self.value / 2, 1.0), 0
            return explained
        self.good += 1
        if self.good >= _GROW_AFTER:
            self.value, self.good = min(self.value * 2, _MOST), 0
        return True
