"""Floating-point operations of training, counted as the field counts them, and the share of the device's peak (MFU).

A token costs 6 × (parameters in matrix products: without the embedding, with the head, also when tied) plus
6 × layers × heads × head size × T for causal attention over rows of T tokens; recomputed activations do not
count. The older form (PaLM, arXiv:2204.02311, appendix B) has 12 in place of the second 6: it counts what a
causal mask hides. Bidirectional attention is counted by 12 in both.
"""

from __future__ import annotations

import resource
from pathlib import Path

import torch
from torch import nn

from training import stages
from training.model.decoder import Decoder
from training.model.encoder import Encoder

FORMULA = "6 × weights in matrix products + 6 × layers × heads × head size × row's tokens (12 where nothing is masked)"
# Dense bf16 peaks in FLOP/s, from NVIDIA's data sheets.
PEAKS = {
    "H100": 989.5e12,
    "H200": 989.5e12,
    "GH200": 989.5e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
}


def matrix_parameters(model: nn.Module) -> int:
    """Weights that a token is multiplied by: those of linear layers, the head among them."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))


def per_token(model: nn.Module, row_tokens: int, full_form: bool = False) -> float:
    """FLOPs of forward and backward for one token of rows of ``row_tokens``; ``full_form``: 12 in place of 6."""
    stage = stages.of(model)
    found = 6.0 * (matrix_parameters(model) if stage is None else stage.products)
    config = getattr(model, "config", None)
    if config is None:
        return found
    factor = 12.0 if full_form or config.kind == "encoder" else 6.0
    return found + factor * config.all_layers * config.heads * config.head_width * row_tokens


def peak(device: torch.device, precision: str) -> float | None:
    """The device's peak in FLOP/s for matrix products in bf16 or fp16; None where it is not known."""
    if device.type != "cuda" or precision == "fp32":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((value for key, value in PEAKS.items() if key in words), None)


class Meter:
    """Speed and memory of steps, for the log: tokens and FLOPs a second, the share of the peak, bytes in use."""

    def __init__(self, model: nn.Module, device: torch.device, precision: str, processes: int) -> None:
        self.model, self.device, self.processes = model, device, processes
        self.peak = peak(device, precision)
        self.costs: dict[int, float] = {}  # of a token, by the length of rows

    def row(self, rows: float, length: int, seconds: float) -> dict[str, float]:
        """Metrics of a step of ``seconds`` over ``rows`` rows of ``length`` tokens, all processes' together."""
        found = {"memory_bytes": float(memory_in_use(self.device))}
        if not length:
            return found
        tokens = rows * length
        each = tokens / seconds / self.processes
        found |= {"tokens_per_second": tokens / seconds, "tokens_per_second_per_worker": each}
        if not isinstance(self.model, Decoder | Encoder):  # what a token costs is defined for these
            return found
        cost = self.costs.setdefault(length, per_token(self.model, length))
        found["tflops_per_worker"] = each * cost / 1e12
        return found | ({"mfu": each * cost / self.peak} if self.peak else {})


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that tensors have taken on a GPU, or what this process holds of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
