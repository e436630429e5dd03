"""What near-duplicate removal finds, against what is there: labelled articles, planted edits, large bands.

``python benchmarks/near_duplicates.py [articles] [edits] [bands]`` (all three without arguments) runs the Spark step on

- the McCormick articles of DATA_DIR: true pairs have a Jaccard of at least 0.96, all others of less than 0.5;
- 500 pairs of documents at each Jaccard of 0.70, 0.75 … 0.95, edited until the exact Jaccard is within 0.005 of it;
- 1,500 documents of 30 templates that are themselves edits of one: their bands hold up to all of them, and blocks
  smaller than those (`block_documents`, `max_rounds`) cost recall, which is printed beside that of one block.

Exit status 1 where a floor is missed.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataeng import stage
from dataeng.dedup import Config
from dataeng.dedup.hashing import compare_groups, jaccard_from
from dataeng.dedup.minhash import bands, shingles
from dataeng.document import Document, to_batch, to_row
from dataeng.recipe import Recipe, Table
from dataeng.stage import Attempt, Manifest
from spark_jobs import dedup
from spark_jobs.session import Engine

CONFIG = Config()
LEVELS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
PAIRS, WORDS, TOLERANCE = 500, 404, 0.005
TEMPLATES, MEMBERS = 30, 50
VOCABULARY = [f"{a}{b}{c}{d}" for a in "bdfgklmn" for b in "aeiou" for c in "bdfgklmnprst" for d in ("a", "ek", "in")]
missed: list[str] = []


def say(what: str, found: str, holds: bool) -> None:
    """One line for a floor."""
    print(f"{'ok    ' if holds else 'MISSED'} {what}: {found}", flush=True)
    if not holds:
        missed.append(what)


class Runs:
    """Runs of the step over texts, in one Spark session."""

    def __init__(self, folder: str) -> None:
        self.folder, self.count = Path(folder), 0
        self.engine: Engine | None = None

    def publish(self, texts: dict[str, str]) -> Path:
        """A root whose stage ``texts`` has these documents."""
        self.count += 1
        root = self.folder / f"{self.count:03d}"
        attempt = Attempt("texts", str(root / "texts"), Table(), "0" * 32, [], None)
        path = Path(attempt.data_folder, "table=kept", "part-0.parquet")
        path.parent.mkdir(parents=True)
        rows = [to_row(Document(id=name, text=text)) for name, text in texts.items()]
        pq.write_table(pa.Table.from_batches([to_batch(rows)]).drop_columns(["table"]), path)
        tables = stage.tables_of([stage.measure(str(path))], attempt)
        attempt.publish(attempt.manifest(tables=tables, counts={"in": len(rows), "kept": len(rows), "dropped": 0}))
        return root

    def dedup(self, root: Path, **settings: Any) -> tuple[Manifest, list[dict[str, Any]]]:
        """The step's manifest and its dropped rows (id, rule, duplicate_of, matched, similarity)."""
        tables = {"spark": {"master": "local[2]", "driver_memory": "2g"}, "dedup": {"input": "texts", **settings}}
        recipe = Recipe("near_duplicates", str(root), 0, tables)
        self.engine = self.engine or Engine(recipe)
        manifest = dedup.step(self.engine, recipe)
        columns = ["id", "rule", "duplicate_of", "matched", "similarity"]
        paths = stage.table_paths(str(root / "dedup"), manifest, "dropped")
        return manifest, [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]


def articles(runs: Runs) -> None:
    """All true pairs, and nothing else."""
    folder = Path(os.environ.get("DATA_DIR", "../shared/data"), "neardup", "mccormick")
    if not folder.exists():
        print(f"{folder} is absent: the articles are left out")
        return
    for size in (100, 1000, 2500):
        lines = (folder / f"articles_{size}.train").read_text(encoding="utf-8", errors="replace").splitlines()
        truth = {tuple(sorted(line.split())) for line in (folder / f"articles_{size}.truth").read_text().splitlines()}
        _, dropped = runs.dedup(runs.publish(dict(line.split(" ", 1) for line in lines)))
        found = {tuple(sorted((row["id"], row["matched"]))) for row in dropped}
        figures = f"{len(found & truth)} of {len(truth)} true pairs, {len(found - truth)} false"
        say(f"McCormick, {size} articles", figures, found == truth)


def drawn(random: np.random.Generator, words: int) -> list[str]:
    """So many words."""
    return [VOCABULARY[k] for k in random.integers(0, len(VOCABULARY), words)]


def edited(random: np.random.Generator, words: list[str], jaccard: float) -> tuple[list[str], float]:
    """The words with some runs of them drawn anew, at an exact Jaccard within TOLERANCE of the one asked for."""
    own = shingles(" ".join(words))
    lost = round(own.size * (1 - jaccard) / (1 + jaccard))  # a run of m words stands in m + 4 shingles
    while True:
        count = int(random.integers(1, max(2, lost // 5)))
        lengths = 1 + random.multinomial(max(0, lost - 5 * count), np.full(count, 1 / count))
        other = list(words)
        for length, place in zip(lengths, random.integers(0, len(words) - lengths.max(), count), strict=True):
            other[place : place + length] = drawn(random, length)
        found = float(jaccard_from(own, shingles(" ".join(other)), 0.0))
        if abs(found - jaccard) <= TOLERANCE:
            return other, found


def edits(runs: Runs) -> None:
    """The rate at which pairs meet is that of the formula, and what is under the threshold stays."""
    random, texts, exact = np.random.default_rng(1), {}, {}
    for level in LEVELS:
        for number in range(PAIRS):
            words = drawn(random, WORDS)
            other, found = edited(random, words, level)
            name = f"{level:.2f} {number:03d}"
            texts |= {f"{name} a": " ".join(words), f"{name} b": " ".join(other)}
            exact[name] = found
    root = runs.publish(texts)
    _, low = runs.dedup(root, threshold=LEVELS[0] - 2 * TOLERANCE)
    met = {row["id"][:-2] for row in low}
    for level in LEVELS:
        names = [name for name in exact if name.startswith(f"{level:.2f}")]
        rates = np.array([1 - (1 - exact[name] ** CONFIG.rows) ** CONFIG.bands for name in names])
        rate, wanted = sum(name in met for name in names) / len(names), float(rates.mean())
        error = math.sqrt(float((rates * (1 - rates)).sum())) / len(names)
        figures = f"{rate:.1%} of {len(names)} pairs found, by the formula {wanted:.1%}"
        away = abs(rate - wanted) / error
        say(f"pairs of Jaccard {level:.2f}", f"{figures} ({away:.1f} standard errors)", away <= 3)
    _, dropped = runs.dedup(root)
    pairs = {row["id"][:-2]: row for row in dropped}
    under = [name for name in pairs if exact[name] < CONFIG.threshold]
    say(f"removed under the threshold of {CONFIG.threshold}", f"{len(under)} of {len(pairs)} removals", not under)
    honest = all(
        row["matched"][:-2] == name and abs(row["similarity"] - exact[name]) < 1e-6 for name, row in pairs.items()
    )
    expected = {name for name in met if exact[name] >= CONFIG.threshold}
    say(
        "pairs that meet at or above it",
        f"{len(pairs)} of {len(expected)} removed",
        pairs.keys() == expected and honest,
    )


def families(random: np.random.Generator) -> dict[str, str]:
    """Templates that are edits of one (Jaccard 0.75), each with edits of its own (0.85 to 0.92)."""
    base, texts = drawn(random, WORDS), {}
    for template in range(TEMPLATES):
        words, _ = edited(random, base, 0.75)
        for member in range(MEMBERS):
            own, _ = edited(random, words, float(random.uniform(0.85, 0.92)))
            texts[f"{random.integers(0, 2**62):016x} {template} {member}"] = " ".join(own)
    return texts


def components(sets: Iterable[np.ndarray]) -> int:
    """How many documents go if all pairs are compared, bands or not."""
    arrays = list(sets)
    bounds = np.concatenate(([0], np.cumsum([values.size for values in arrays]))).astype(np.int64)
    whole = np.array([0, len(arrays)], np.int64)
    roots, _, _ = compare_groups(np.concatenate(arrays), bounds, whole, CONFIG.threshold)
    return int((roots != np.arange(roots.size)).sum())


def large_bands(runs: Runs) -> None:
    """The recall that blocks and rounds cost."""
    texts = families(np.random.default_rng(2))
    sets = [shingles(text) for text in texts.values()]
    members: dict[tuple[int, int], int] = {}
    for values in sets:
        for place in enumerate(bands(values, CONFIG).tolist()):
            members[place] = members.get(place, 0) + 1
    print(f"{len(texts)} documents of {TEMPLATES} templates: the largest band has {max(members.values())}; ", end="")
    print(f"comparing all pairs removes {components(sets)}")
    root, most = runs.publish(texts), 0
    for block, rounds in ((4096, 1), (128, 5), (32, 1), (8, 1), (8, 2), (8, 5)):
        manifest, dropped = runs.dedup(root, block_documents=block, max_rounds=rounds)
        most = most or len(dropped)
        cut = manifest.details["bands_cut_off"]
        share = len(dropped) / most
        print(f"  block_documents {block:4}, max_rounds {rounds}: {len(dropped)} removed, ", end="")
        print(f"{share:.2%} of those of one block; bands cut off: {cut}", flush=True)
        if (block, rounds) == (CONFIG.block_documents, CONFIG.max_rounds):
            say(
                "recall of large bands by the defaults",
                f"{len(dropped) / most:.2%} (99 %)",
                len(dropped) >= 0.99 * most,
            )


PARTS: dict[str, Callable[[Runs], None]] = {"articles": articles, "edits": edits, "bands": large_bands}


def main() -> None:
    """Run the parts asked for."""
    asked = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in asked if name not in PARTS]:
        sys.exit(f"error: {unknown[0]}: no such part; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(folder)
        try:
            for name in asked:
                PARTS[name](runs)
        finally:
            if runs.engine:
                runs.engine.stop()
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
