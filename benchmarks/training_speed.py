"""Tokens a second of the trainer against Hugging Face's `Trainer`, litgpt's model and plain loops; bf16 against fp32.

``python benchmarks/training_speed.py [PACKAGES] [compile]``: a 12M decoder (6 layers, 384 wide, vocabulary 4,096) on
16 rows of 256 random tokens, two threads, one process. PACKAGES is a folder with accelerate, psutil and litgpt
(``pip install --target PACKAGES --no-deps accelerate psutil litgpt lightning lightning-utilities torchmetrics``);
peers that cannot be imported are left out, saying so. All take turns, step by step; printed are medians of the steps
and of the ratios in each turn. Floors: 1.0 x HF Trainer, 0.98 x the plain loop over the same model, bf16 2 x fp32.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from own_trainer import random_batches, step_seconds
from peer_trainer import LENGTH, ROWS, SHAPE, VOCABULARY, arguments, llama
from torch import nn
from torch.nn import functional as F
from turns import Run, ratio, step_times

from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

STEPS, WARM = 34, 4  # of each; those that are not counted
RATE = 1e-3
batches = partial(random_batches, ROWS, LENGTH, VOCABULARY)


def ours(precision: str, compiled: bool) -> Run:
    """The trainer with all that it watches, measures and keeps, but checkpoints between steps."""
    graph = "model" if compiled else False  # as much as the others compile
    settings = TrainerConfig(batch=ROWS, micro_batch=ROWS, learning_rate=RATE, precision=precision, compile=graph)

    def run(steps: int, ended: Callable[[], None]) -> None:
        longer = settings.model_copy(update={"max_steps": steps})
        step_seconds(SHAPE, VOCABULARY, longer, batches(), ended=lambda _row: ended())

    return run


def plain(make: Callable[[], nn.Module], compiled: bool) -> Run:
    """A loop as in nanoGPT: forward and loss (compiled as one), backward, clip, fused AdamW, and nothing else."""

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(model(batch["tokens"]).flatten(0, 1).float(), batch["targets"].flatten())

    def run(steps: int, ended: Callable[[], None]) -> None:
        model = make()
        losses = torch.compile(forward) if compiled else forward
        made = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        for batch in islice(batches(), steps):
            with torch.autocast("cpu", torch.bfloat16):
                loss = losses(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            made.step()
            made.zero_grad(set_to_none=True)
            loss.item()
            ended()

    return run


def _decoder() -> nn.Module:
    model = Decoder(SHAPE, VOCABULARY)
    init_weights(model, 0)
    return model


def hugging_face(compiled: bool) -> Run:
    """Hugging Face's Trainer on its own model of the same shape."""
    from transformers import Trainer, TrainerCallback

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for batch in batches():
                for row in batch["tokens"]:
                    yield {"input_ids": row, "labels": row}

    def run(steps: int, ended: Callable[[], None]) -> None:
        class Ends(TrainerCallback):
            def on_step_end(self, *_values: Any, **_named: Any) -> None:
                ended()

        with tempfile.TemporaryDirectory() as folder:
            Trainer(llama(), arguments(folder, steps, RATE, compiled), train_dataset=Rows(), callbacks=[Ends()]).train()

    return run


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


def contestants(compiled: bool) -> dict[str, Run]:
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
    times = step_times(runs, STEPS, WARM)
    print(f"{'compiled' if compiled else 'eager'}, {torch.get_num_threads()} threads, {STEPS - WARM} steps of each")
    shares = {name: ratio(times, name, "millrace") for name in times}
    for name, values in times.items():
        speed = ROWS * LENGTH / statistics.median(values)
        print(f"  {name:<28}{speed:>9,.0f} tokens/s   millrace / it = {shares[name]:.3f}")
    floors = {"HF Trainer": 1.0, "plain loop": 0.98, "millrace, fp32": 2.0}
    missed = [name for name, floor in floors.items() if shares.get(name, floor) < floor]
    print("ok" if not missed else f"MISSED against {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
