"""The share of a GPU's peak that pretraining reaches (MFU): a 1B decoder in bf16, rows of 2,048 tokens.

    [torchrun --nproc-per-node N] python benchmarks/mfu.py [steps=12] [peak=TFLOPS] [vocabulary=32768]
        [model.KEY=VALUE …] [KEY=VALUE …]

KEY=VALUE are settings of the trainer, model.KEY=VALUE of the shape. Printed is the median step after the first four,
which compile: tokens a second, TFLOP/s, and MFU in both forms (`training.flops`: the floor's form counts 6 × layers ×
heads × head size × T for causal attention, the older one 12 ×; recomputation counts in neither). The peak is that of
the device's data sheet, or ``peak``; where neither is known (a CPU), no MFU is printed. Aim: 50 %; 1 below it.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any

import torch
from own_trainer import random_batches, step_seconds
from torch import distributed as dist

from dataeng.cli import UserError, run
from dataeng.recipe import Recipe, override
from training import flops
from training.context import default_device
from training.methods import pretrain
from training.model.decoder import Decoder

SHAPE = {"layers": 16, "width": 2048, "heads": 16, "kv_heads": 8, "ffn": 8192, "context": 2048, "tied": True}
SETTINGS: dict[str, Any] = {"micro_batch": 16, "compile": True, "optimizer": "muon"}
OPTIONS = {"steps": 12, "vocabulary": 32_768, "peak": None}
PARTS, WARM, AIM = 16, 4, 0.5  # micro-batches of a step


def settings_from(words: list[str], world: int) -> tuple[dict[str, Any], pretrain.Config]:
    """Options of this program; the shape and the trainer's settings, checked like a recipe's."""
    given: dict[str, Any] = {}
    for word in words:
        override(given, word)
    options = {key: given.pop(key, value) for key, value in OPTIONS.items()}
    if options["steps"] <= WARM + 1:
        raise UserError(f"steps = {options['steps']}: must be more than {WARM + 1}, which are not counted")
    settings = SETTINGS | given | {"model": SHAPE | given.get("model", {})}
    table = {"batch": PARTS * settings["micro_batch"] * world, "max_steps": options["steps"], "checkpoint_every": 10**6}
    return options, Recipe("mfu.py", "", 0, {"pretrain": table | settings}).step("pretrain")


def main(words: list[str]) -> None:
    """Measure and print."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    options, settings = settings_from(words, world)
    device = default_device(int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1:
        dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo")
    shape, vocabulary = settings.model, options["vocabulary"]
    batches = random_batches(settings.micro_batch, shape.context, vocabulary, seed=rank)
    taken = step_seconds(shape, vocabulary, settings, batches, processes=world)
    if world > 1:
        dist.destroy_process_group()
    if rank == 0:
        tell(taken, options, settings, device, world)


def tell(
    taken: list[float], options: dict[str, Any], settings: pretrain.Config, device: torch.device, world: int
) -> None:
    """Print what the steps' seconds amount to; exits 1 below the aim."""
    shape = settings.model
    with torch.device("meta"):
        model = Decoder(shape, options["vocabulary"])
    seconds = statistics.median(taken[WARM:-1])  # the last one ends with a checkpoint
    speed = settings.batch * shape.context / seconds / world
    own, older = (flops.per_token(model, shape.context, full_form=full) for full in (False, True))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{flops.matrix_parameters(model) / 1e6:,.1f}M parameters in matrix products, rows of {shape.context}, "
        f"{settings.batch} rows a step, {settings.precision}, {settings.optimizer}, {world} x {name}"
    )
    print(f"step {seconds:.3f} s; {speed:,.0f} tokens/s and {speed * own / 1e12:.1f} TFLOP/s on each")
    peak = options["peak"] * 1e12 if options["peak"] else flops.peak(device, settings.precision)
    if not peak:
        print("no MFU: this device's peak is not known (peak=TFLOPS)")
        return
    print(f"MFU {speed * own / peak:.1%} ({own / 1e9:.3f} GFLOP a token); {speed * older / peak:.1%} by the 12 x form")
    if speed * own / peak < AIM:
        print(f"MISSED: the aim is {AIM:.0%}")
        sys.exit(1)


if __name__ == "__main__":
    run(main)
