"""Training time to the validation loss that Hugging Face's `Trainer` ends at: our default recipe against its AdamW.

    python benchmarks/time_to_loss.py [PACKAGES] [tokens=4000000] [seeds=0,1,2] [rates=1e-3,2e-3,4e-3]
        [sides=hf,ours] [share=1.0] [results=FILE] [eager] [KEY=VALUE …]

A 12M decoder (6 layers, 384 wide, vocabulary 4,096) on DATA_DIR's books, bf16, batches of 16 rows of 256 tokens, the
same in the same order for both; the seed sets their order and the first weights. PACKAGES holds accelerate
(peer_trainer.py). Each side has the best of the same rates, by its last validation loss; the schedule's form is one:
a twentieth of warm-up, then a cosine to a tenth. Books held back whole are validated on. ``share`` shortens our run,
schedule and all, to so much of the peer's. ``results`` keeps runs as JSON lines and takes those that are there, so
that parts can be measured one after another, or beside each other; KEY=VALUE are further settings of ours
(optimizer="adamw"). The time of a step is measured first, both sides in turns. Printed are medians over the
seeds of ours / theirs in steps and in time. Floor: 0.7 in time.
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import torch
from own_trainer import next_tokens, settings_of, step_seconds
from peer_trainer import LENGTH, ROWS, SHAPE, VOCABULARY, arguments, llama
from torch import Tensor, nn
from torch.nn import functional as F
from turns import Run, ratio, step_times

from dataeng.tokens import tokenizer as tokenizers
from training.methods import pretrain
from training.settings import TrainerConfig

HELD_BACK, VALIDATED = 10, 96  # every so many books; rows of them, from all alike
POINTS = 20  # validations of a run
TURNS, WARM = 34, 4  # of each side's steps that are timed; those not counted
WARMUP = 0.05
FLOOR = 0.7
SAMPLE_BYTES = 3_000_000  # of text that the tokenizer learns from
TOKEN_BYTES = 4.5  # of text that certainly make a token
HELD_BYTES = 100_000  # of each book held back


@dataclass
class Curve:
    """Validation losses by step."""

    every: int
    held_back: list[Tensor]
    ended: Callable[[], None] = lambda: None  # told of each step's end
    steps: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)

    def validate(self, step: int, logits: Callable[[Tensor], Tensor]) -> float:
        """The mean loss of the rows held back."""
        total = 0.0
        for rows in self.held_back:
            total += float(F.cross_entropy(logits(rows[:, :-1]).float().flatten(0, 1), rows[:, 1:].flatten()))
        self.losses.append((step, total / max(len(self.held_back), 1)))
        return self.losses[-1][1]

    def end(self) -> None:
        """A step is over."""
        self.steps += 1
        self.ended()


def books(tokens: int) -> tuple[np.ndarray, list[Tensor]]:
    """Rows (N, 257) to learn from, at least so many tokens, and batches to validate on.

    The vocabulary is learned from the former's text; of each book its beginning is taken, the same share of all.
    """
    path = Path(os.environ.get("DATA_DIR", "../shared/data"), "books", "books.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    taught = [text for number, text in enumerate(texts) if number % HELD_BACK]
    config = tokenizers.Config.model_validate({"vocabulary": VOCABULARY})
    made = tokenizers.learn([text[: SAMPLE_BYTES // len(taught)] for text in taught], config)
    share = min(1.0, tokens * TOKEN_BYTES / sum(map(len, taught)))

    def rows(some: list[str]) -> np.ndarray:
        found = []
        for encoding in made.encode_batch(some, add_special_tokens=False):
            ids = np.asarray(encoding.ids, np.int64)
            found.append(ids[: len(ids) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1))
        return np.concatenate(found)

    held = rows([text[:HELD_BYTES] for number, text in enumerate(texts) if not number % HELD_BACK])
    held = held[np.linspace(0, len(held) - 1, VALIDATED).astype(int)]
    return rows([text[: int(share * len(text))] for text in taught]), list(torch.from_numpy(held).split(ROWS))


def batches(rows: np.ndarray, seed: int) -> Iterator[Tensor]:
    """Batches (16, 257) in the seed's order, again from its first once all are used."""
    order = np.random.default_rng(seed).permutation(len(rows))
    while True:
        for at in range(0, len(order) - ROWS + 1, ROWS):
            yield torch.from_numpy(rows[order[at : at + ROWS]])


def warmup(steps: int) -> int:
    """Steps of warm-up."""
    return round(WARMUP * steps)


def ours(
    rows: np.ndarray, curve: Curve, steps: int, rate: float, seed: int, compiled: bool, more: dict[str, Any]
) -> None:
    """Our trainer with its default recipe."""
    settings = TrainerConfig(
        **{
            "max_steps": steps, "batch": ROWS, "micro_batch": ROWS, "learning_rate": rate, "warmup": warmup(steps),
            "compile": "model" if compiled else False, "checkpoint_every": steps, "validate_every": curve.every,
        } | more
    )  # fmt: skip

    def validate(model: nn.Module) -> dict[str, float]:
        return {"validation_loss": curve.validate(curve.steps + 1, model)}

    made = map(next_tokens, batches(rows, seed))
    step_seconds(SHAPE, VOCABULARY, settings, made, seed, validate=validate, ended=lambda _row: curve.end())


def hf(
    rows: np.ndarray, curve: Curve, steps: int, rate: float, seed: int, compiled: bool, _more: dict[str, Any]
) -> None:
    """Hugging Face's Trainer with AdamW, on its own model of the same shape."""
    from transformers import Trainer, TrainerCallback

    model = llama(seed)

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for batch in batches(rows, seed):
                for row in batch:
                    yield {"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]}

    class Watch(TrainerCallback):
        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_named: Any) -> None:
            if state.global_step % curve.every == 0 or state.global_step == steps:
                model.eval()
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                    curve.validate(state.global_step, lambda tokens: model(tokens).logits)
                model.train()
            curve.end()

    with tempfile.TemporaryDirectory() as folder:
        settings = arguments(
            folder, steps, rate, compiled, adam_beta2=0.95, warmup_steps=warmup(steps), seed=seed,
            remove_unused_columns=False, lr_scheduler_type="cosine_with_min_lr",
            lr_scheduler_kwargs={"min_lr_rate": 0.1},
        )  # fmt: skip
        Trainer(model, settings, train_dataset=Rows(), callbacks=[Watch()]).train()


def steps_to(losses: list[tuple[int, float]], wanted: float) -> float | None:
    """The step, between two validations by a straight line, at which a loss is first reached; None: never."""
    before: tuple[int, float] | None = None
    for step, loss in losses:
        if loss <= wanted:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - wanted) / (before[1] - loss)
        before = (step, loss)
    return None


def speeds(plan: dict[str, Any]) -> tuple[dict[str, float], float]:
    """The median seconds of a step of both sides, in turns; the median of ours / theirs."""
    rows = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS * TURNS, LENGTH + 1))

    def of(side: str) -> Run:
        def run(steps: int, ended: Callable[[], None]) -> None:
            _run(side, plan | {"steps": steps}, rows, Curve(2 * steps, [], ended))

        return run

    times = step_times({side: of(side) for side in ("hf", "ours")}, TURNS, WARM)
    return {side: statistics.median(taken) for side, taken in times.items()}, ratio(times, "ours", "hf")


def compare(runs: list[dict[str, Any]], speed: float) -> list[tuple[int, float | None, float | None]]:
    """Of each seed that both sides have: ours / theirs in steps and in time, at each side's best rate.

    ``speed``: the time of our steps / theirs.
    """
    found = []
    for seed in sorted({run["seed"] for run in runs}):
        best = {}
        for side in ("hf", "ours"):
            of_side = [run for run in runs if run["side"] == side and run["seed"] == seed]
            if of_side:
                best[side] = min(of_side, key=lambda run: run["losses"][-1][1])
        if len(best) < 2:
            continue
        theirs, own = best["hf"], best["ours"]
        at = steps_to(own["losses"], theirs["losses"][-1][1])
        share = None if at is None else at / theirs["steps"]
        print(
            f"seed {seed}: the peer ends at {theirs['losses'][-1][1]:.4f} (rate {theirs['rate']:g}, {theirs['steps']} "
            f"steps); ours ({own['settings']['optimizer']}, rate {own['rate']:g}, {own['steps']} steps) ends at "
            f"{own['losses'][-1][1]:.4f} and is there "
            + ("never" if share is None else f"at step {at:.0f}: {share:.3f} x in steps, {share * speed:.3f} x in time")
        )
        found.append((seed, share, None if share is None else share * speed))
    return found


def _run(side: str, plan: dict[str, Any], rows: np.ndarray, curve: Curve) -> Curve:
    """The curve, filled by one run of a side."""
    run, settings = (ours, plan["settings"]) if side == "ours" else (hf, {})
    run(rows, curve, plan["steps"], plan["rate"], plan["seed"], plan["compiled"], settings)
    return curve


def _measured(side: str, plan: dict[str, Any], rows: np.ndarray, held_back: list[Tensor]) -> dict[str, Any]:
    """One run of a side; its line of results."""
    curve = _run(side, plan, rows, Curve(max(1, plan["steps"] // POINTS), held_back))
    return {"side": side} | plan | {"losses": [(step, round(loss, 5)) for step, loss in curve.losses]}


def _numbers(text: str, kind: type) -> list[Any]:
    return [kind(part) for part in text.split(",")]


def main(words: list[str]) -> int:
    """Run what is not there yet, compare, and print; 1 where the floor is missed."""
    named = dict(word.split("=", 1) for word in words if "=" in word)
    sys.path += [word for word in words if "=" not in word and word != "eager"]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    steps = int(named.pop("tokens", "4000000")) // (ROWS * LENGTH)
    seeds, rates = _numbers(named.pop("seeds", "0,1,2"), int), _numbers(named.pop("rates", "1e-3,2e-3,4e-3"), float)
    sides, share = named.pop("sides", "hf,ours").split(","), float(named.pop("share", "1"))
    path = Path(named.pop("results", os.devnull))
    more = settings_of(named)
    more = {"optimizer": pretrain.Config().optimizer} | more
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    data, runs = None, []
    if timed := set(sides) == {"hf", "ours"}:  # first: the two are forked
        taken, speed = speeds({"rate": rates[0], "seed": 0, "compiled": "eager" not in words, "settings": more})
        print(f"a step: the peer's {taken['hf']:.3f} s, ours {taken['ours']:.3f} s, {speed:.3f} x", flush=True)
    for seed in seeds:
        for rate in rates:
            for side in sides:
                length = round(share * steps) if side == "ours" else steps
                plan: dict[str, Any] = {"steps": length, "rate": rate, "seed": seed, "compiled": "eager" not in words}
                plan["settings"] = more if side == "ours" else {}
                found = next(
                    (run for run in done if {"side": side} | plan == {k: run[k] for k in ["side", *plan]}), None
                )
                if found is None:
                    data = data or books(steps * ROWS * LENGTH)
                    found = _measured(side, plan, *data)
                    with path.open("a") as file:
                        file.write(json.dumps(found) + "\n")
                    print(
                        f"{side:<5}rate {rate:<8g}seed {seed}  {length} steps: {found['losses'][-1][1]:.4f}", flush=True
                    )
                runs.append(found)
    if not timed:
        return 0
    ratios = compare(runs, speed)
    if any(in_time is None for _, _, in_time in ratios):
        print("MISSED: a run of ours never reached the peer's loss")
        return 1
    in_steps, in_time = (statistics.median(float(row[at] or 0) for row in ratios) for at in (1, 2))
    print(f"median of {len(ratios)} seeds: {in_steps:.3f} x in steps, {in_time:.3f} x in time (floor {FLOOR})")
    return 1 if in_time > FLOOR else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
