"""Small published roots and recipes, for the tests of training."""

from collections.abc import Callable
from multiprocessing import forkserver, set_forkserver_preload
from pathlib import Path

import numpy as np

from dataeng import stage
from dataeng.recipe import Recipe
from dataeng.tokens import SPLITS, Config, Spool, finish
from dataeng.tokens.tokenizer import Config as TokenizerConfig
from dataeng.tokens.tokenizer import learn, load

WORDS = [
    "the",
    "mill",
    "turns",
    "slowly",
    "while",
    "water",
    "runs",
    "over",
    "its",
    "wheel",
    "and",
    "grain",
    "becomes",
    "flour",
    "for",
    "bread",
]
SAMPLE = 32


def text(number: int, words: int = 60) -> str:
    picked = np.random.default_rng(number).integers(0, len(WORDS), words)
    return " ".join(WORDS[index] for index in picked)


def publish_tokenizer(recipe: Recipe, name: str = "tokenizer", made: str | None = None) -> Path:
    """A tokenizer (of 400 entries), published under the recipe's root without the text that it is from."""
    folder = Path(recipe.root, name)
    path = folder / "data" / "tokenizer.json"
    path.parent.mkdir(parents=True)
    path.write_text(made or learn((text(n) for n in range(50)), TokenizerConfig(vocabulary=400)).to_str())
    put(folder, name, {"kept": stage.file_table(str(folder), [str(path)])})
    return path


def put(folder: Path, name: str, tables: dict) -> None:
    manifest = stage.Manifest(stage=name, version=1, attempt="a", fingerprint="f", config={}, tables=tables)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(manifest.encoded())


def publish_tokens(
    recipe: Recipe, documents: int = 40, sources: tuple[str, ...] = ("web",), tokenizer_json: str | None = None
) -> None:
    """Token shards of random words, split 80/10/10, under the recipe's root (its tokenizer too)."""
    from dataeng.tokens import encoder

    path = publish_tokenizer(recipe, made=tokenizer_json)
    root = Path(recipe.root)
    for split in SPLITS:
        (root / "publish").mkdir(exist_ok=True)
        file = root / "publish" / f"{split}.bin"
        file.write_text(split)
    put(
        root / "publish",
        "publish",
        {s: stage.file_table(str(root / "publish"), [str(root / "publish" / f"{s}.bin")]) for s in SPLITS},
    )
    config = Config(sample_tokens=SAMPLE, shard_tokens=1000)
    attempt = stage.Attempt("tokens", str(root / "tokens"), config, "f", [], None)
    encode = encoder(str(path))
    with Spool() as spool:
        for number in range(documents):
            row = {"id": f"{number:032x}", "source": sources[number % len(sources)], "text": text(number)}
            batch = {key: np.asarray([value], object) for key, value in row.items()} | {"metadata": [None]}
            row = {key: values[0] for key, values in encode(batch).items()}
            split = "validation" if number % 10 == 8 else "test" if number % 10 == 9 else "train"
            spool.add(split, row)
        written = {split: spool.write(split, attempt.data_folder, config, "<u2") for split in SPLITS}
    finish(attempt, recipe, written, load(str(path)).get_vocab_size(), "<u2")


def recipe_at(root: Path, **pretrain: object) -> Recipe:
    """A recipe of a very small decoder on those shards."""
    model = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": SAMPLE}
    table = {
        "max_steps": 6,
        "batch": 6,
        "micro_batch": 3,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "checkpoint_every": 2,
        "window": 8,
        "model": model,
    }
    tables = {"pretrain": table | pretrain, "tokens": {"sample_tokens": SAMPLE}, "train": {}}
    return Recipe("test.toml", str(root), 3, tables)


def start_ranks(child: Callable[..., None], arguments: tuple, ranks: int) -> None:
    """Run ``child(rank, *arguments)`` in processes forked from one that has imported torch: that costs seconds.

    Raises torch's ProcessRaisedException or ProcessExitedException.
    """
    from torch import multiprocessing as mp

    set_forkserver_preload(["training.methods.pretrain", "training.trainer", "training.huggingface"])
    forkserver.ensure_running()
    mp.start_processes(child, arguments, nprocs=ranks, start_method="forkserver")
