"""The loss curve of bf16 against fp32: the same training twice, validated on the same rows.

    python benchmarks/precision_loss.py [tokens=600000] [rate=2e-3] [seed=0] [precision=bf16] [eager] [KEY=VALUE …]

The 12M decoder and the books of time_to_loss.py, our default recipe (KEY=VALUE change it). Printed are both losses at
20 steps and their difference; ``precision`` may be fp16 as well. Floor: the last validation losses within 1 %.
"""

from __future__ import annotations

import os
import sys

import torch
from own_trainer import settings_of
from peer_trainer import LENGTH, ROWS
from time_to_loss import POINTS, Curve, books, ours

from training.methods import pretrain

FLOOR = 0.01


def main(words: list[str]) -> int:
    """Train twice and print; 1 where the floor is missed."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    steps = int(named.pop("tokens", "600000")) // (ROWS * LENGTH)
    rate, seed, low = float(named.pop("rate", "2e-3")), int(named.pop("seed", "0")), named.pop("precision", "bf16")
    more = {"optimizer": pretrain.Config().optimizer}
    more |= settings_of(named)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows, held_back = books(steps * ROWS * LENGTH)
    curves = {}
    for precision in ("fp32", low):
        curves[precision] = Curve(max(1, steps // POINTS), held_back)
        ours(rows, curves[precision], steps, rate, seed, "eager" not in words, more | {"precision": precision})
    apart = 0.0
    for (step, exact), (_, found) in zip(curves["fp32"].losses, curves[low].losses, strict=True):
        apart = found / exact - 1
        print(f"  step {step:>6}  fp32 {exact:.4f}  {low} {found:.4f}  {apart:+.3%}")
    print(f"{low} ends {apart:+.3%} from fp32's validation loss (floor: within {FLOOR:.0%})")
    return 1 if abs(apart) > FLOOR else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
