"""The character model of nanoGPT's README, by the public steps: 4 layers, 128 wide, 64 characters, 2,000 steps of 12.

    python benchmarks/character.py [STEPS] [KEY=VALUE …]

Validation loss (nats a character) on the last tenth of tinyshakespeare, all of it; nanoGPT's README gives 1.88.
Overrides are of [pretrain], such as learning_rate=2e-3.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from own_trainer import settings_of

from dataeng import stage
from dataeng.recipe import Recipe
from dataeng.tokens import Config, Spool, encoder, finish
from dataeng.tokens import tokenizer as tokenizers
from training import train
from training.context import Context

CONTEXT = 64
PRETRAIN: dict[str, Any] = {
    "optimizer": "adamw",
    "batch": 12,
    "micro_batch": 12,
    "learning_rate": 2e-3,
    "minimum_share": 0.05,
    "warmup": 100,
    "betas": [0.9, 0.99],
    "precision": "fp32",
    "join_documents": True,
    "checkpoint_every": 2000,
    "log_every": 200,
    "validation_samples": 1 << 20,
    "model": {"layers": 4, "width": 128, "heads": 4, "context": CONTEXT, "dropout": 0.0},
}


def published(recipe: Recipe, text: str) -> None:
    """Tokenizer and token shards of a text under the root: nine tenths to train on, the last for validation."""
    made = tokenizers.learn([text], tokenizers.Config.model_validate({"kind": "character", "single_digits": False}))
    folder = Path(recipe.root, "tokenizer")
    (folder / "data").mkdir(parents=True)
    path = folder / "data" / "tokenizer.json"
    path.write_text(made.to_str())
    for name, tables in (("tokenizer", {"kept": stage.file_table(str(folder), [str(path)])}), ("publish", {})):
        manifest = stage.Manifest(stage=name, version=1, attempt="a", fingerprint="f", config={}, tables=tables)
        Path(recipe.root, name).mkdir(exist_ok=True)
        Path(recipe.root, name, "manifest.json").write_bytes(manifest.encoded())
    cut = int(0.9 * len(text))
    config = Config.model_validate({"sample_tokens": CONTEXT})
    attempt = stage.Attempt("tokens", str(Path(recipe.root, "tokens")), config, "f", [], None)
    with Spool() as spool:
        for split, part in (("train", text[:cut]), ("validation", text[cut:])):
            row = {"id": split, "source": "shakespeare", "text": part}
            batch = {key: np.asarray([value], object) for key, value in row.items()} | {"metadata": [None]}
            spool.add(split, {key: values[0] for key, values in encoder(str(path))(batch).items()})
        written = {split: spool.write(split, attempt.data_folder, config, "<u2") for split in ("train", "validation")}
    finish(attempt, recipe, written, made.get_vocab_size(), "<u2")


def main() -> None:
    """Train once and print the losses."""
    overrides = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    steps = next((int(argument) for argument in sys.argv[1:] if "=" not in argument), 2000)
    more = settings_of(overrides)
    data = Path(os.environ.get("DATA_DIR", "../shared/data"), "tinyshakespeare")
    text = next(data.rglob("input.txt")).read_text()
    with tempfile.TemporaryDirectory() as root:
        tables = {"pretrain": PRETRAIN | {"max_steps": steps} | more, "tokens": {"sample_tokens": CONTEXT}}
        recipe = Recipe("character", root, 0, tables)
        published(recipe, text)
        begun = time.monotonic()
        train.check(recipe, ["pretrain"])
        train.run_steps(recipe, ["pretrain"], Context.single)
        details = stage.need_manifest(root, "pretrain", "benchmark").details
    row = {
        "steps": steps,
        "parameters": details["parameters"],
        "validation_loss": round(details["metrics"]["validation_loss"], 4),
        "loss": round(details["metrics"]["loss"], 4),
        "seconds": round(time.monotonic() - begun, 1),
        "floor": 1.88,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
