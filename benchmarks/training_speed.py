"""Tokens a second of the trainer against Hugging Face's `Trainer`, litgpt's model and plain loops; bf16 against fp32.

``python benchmarks/training_speed.py [PACKAGES] [compile]``: a 12M decoder (6 layers, 384 wide, vocabulary 4,096) on
16 rows of 256 random tokens, two threads, one process. PACKAGES is a folder with accelerate, psutil and litgpt
(``pip install --target PACKAGES --no-deps accelerate psutil litgpt lightning lightning-utilities torchmetrics``);
peers that cannot be imported are left out, saying so. Segments of steps take turns, the first of each is not
counted; printed are medians. Floors: 1.0 x HF Trainer, 0.98 x the plain loop over the same model, bf16 2 x fp32.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from peer_trainer import LENGTH, ROWS, SHAPE, VOCABULARY, arguments, llama
from torch import nn
from torch.nn import functional as F

from dataeng.recipe import Recipe
from training import parallel, trainer
from training.context import Context
from training.methods import pretrain
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

STEPS, ROUNDS = 8, 5  # of a segment, the first two not counted; segments of each
RATE = 1e-3
Seconds = list[float]


def batches() -> Iterator[dict[str, torch.Tensor]]:
    """Rows of random tokens, the same for all."""
    generator = torch.Generator().manual_seed(0)
    while True:
        tokens = torch.randint(0, VOCABULARY, (ROWS, LENGTH + 1), generator=generator)
        yield {"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}


def ours(precision: str, compiled: bool) -> Callable[[], Seconds]:
    """The trainer with all that it watches, measures and keeps, but checkpoints between steps."""
    settings = TrainerConfig(
        max_steps=STEPS, batch=ROWS, micro_batch=ROWS, learning_rate=RATE, precision=precision, compile=compiled
    )

    def segment() -> Seconds:
        with tempfile.TemporaryDirectory() as root:
            context = Context(Recipe("", root, 0, {}), "pretrain", settings, checkpoint_fingerprint="speed")
            model = parallel.build(context, lambda: Decoder(SHAPE, VOCABULARY), settings, lambda m: init_weights(m, 0))
            ends = [time.perf_counter()]
            context.report = lambda _row: ends.append(time.perf_counter())

            def steps(position: int) -> Iterator[trainer.Step]:
                for batch in batches():
                    position += ROWS
                    yield trainer.Step([batch], float(ROWS * LENGTH), position)

            trainer.fit(context, model, steps, pretrain.loss, settings)
            return [end - begin for begin, end in pairwise(ends)]

    return segment


def plain(make: Callable[[], nn.Module], compiled: bool) -> Callable[[], Seconds]:
    """A loop as in nanoGPT: forward, backward, clip, fused AdamW, and nothing else."""

    def segment() -> Seconds:
        model = make()
        if compiled:
            for block in model.layers if isinstance(model, Decoder) else [model]:
                block.compile()
        made = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        found = []
        for batch in islice(batches(), STEPS):
            begun = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                out = model(batch["tokens"])
                loss = F.cross_entropy(out.flatten(0, 1).float(), batch["targets"].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            made.step()
            made.zero_grad(set_to_none=True)
            loss.item()
            found.append(time.perf_counter() - begun)
        return found

    return segment


def _decoder() -> nn.Module:
    model = Decoder(SHAPE, VOCABULARY)
    init_weights(model, 0)
    return model


def hugging_face(compiled: bool) -> Callable[[], Seconds]:
    """Hugging Face's Trainer on its own model of the same shape."""
    from transformers import Trainer, TrainerCallback

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for batch in batches():
                for row in batch["tokens"]:
                    yield {"input_ids": row, "labels": row}

    class Ends(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_values: Any, **_named: Any) -> None:
            self.ends.append(time.perf_counter())

    def segment() -> Seconds:
        with tempfile.TemporaryDirectory() as folder:
            ends = Ends()
            Trainer(llama(), arguments(folder, STEPS, RATE, compiled), train_dataset=Rows(), callbacks=[ends]).train()
            return [end - begin for begin, end in zip(ends.ends, ends.ends[1:], strict=False)]

    return segment


def litgpt() -> nn.Module:
    """litgpt's model of the same shape (its head is not tied)."""
    from litgpt import GPT, Config

    return GPT(
        Config(
            block_size=LENGTH, padded_vocab_size=VOCABULARY, vocab_size=VOCABULARY, n_layer=SHAPE.layers,
            n_head=SHAPE.heads, n_query_groups=SHAPE.key_heads, n_embd=SHAPE.width, rotary_percentage=1.0,
            parallel_residual=False, bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP",
            intermediate_size=SHAPE.inner, lm_head_bias=False,
        )
    )  # fmt: skip


def contestants(compiled: bool) -> dict[str, Callable[[], Seconds]]:
    """All that can be run here, by name."""
    found = {
        "millrace": ours("bf16", compiled),
        "plain loop": plain(_decoder, compiled),
        "millrace, fp32": ours("fp32", compiled),
    }
    try:
        import accelerate  # noqa: F401

        found["HF Trainer"] = hugging_face(compiled)
    except ImportError:
        print("accelerate is not there: Hugging Face's Trainer is left out")
    try:
        from litgpt import GPT  # noqa: F401

        found["litgpt's model, plain loop"] = plain(litgpt, compiled)
    except ImportError as error:
        print(f"litgpt is not there ({error}): left out")
    return found


def main(words: list[str]) -> int:
    """Measure in turns and print; 1 where a floor is missed."""
    sys.path += [name for name in words if name != "compile"]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    compiled = "compile" in words
    runs = contestants(compiled)
    times: dict[str, Seconds] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for name, segment in runs.items():
            found = segment()
            times[name] += found[2:] if turn else []
    speed = {name: ROWS * LENGTH / statistics.median(values) for name, values in times.items()}
    print(f"{'compiled' if compiled else 'eager'}, {torch.get_num_threads()} threads, {ROUNDS} segments each")
    for name, value in speed.items():
        print(f"  {name:<28}{value:>9,.0f} tokens/s   millrace / it = {speed['millrace'] / value:.3f}")
    floors = {"HF Trainer": 1.0, "plain loop": 0.98, "millrace, fp32": 2.0}
    missed = [name for name, floor in floors.items() if name in speed and speed["millrace"] / speed[name] < floor]
    print("ok" if not missed else f"MISSED against {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
