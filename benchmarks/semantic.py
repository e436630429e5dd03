"""What the step `semantic` finds of planted copies that MinHash cannot, by k-means cells; what else it removes.

    python benchmarks/semantic.py [DOCUMENTS=6000] [STAGE …]

Books of DATA_DIR are cut into pages of 400 words. A third of them gets a copy: a fifth each with its runs of 20 words
in another order, cut to 70 %, in a frame of 130 other words, with one word in sixteen changed, and with one in eight.
Their exact Jaccard of 5-word shingles is under 0.8, so `dedup` keeps them. Vectors are the offline ones (hashed words).
Printed for each kind: pairs, mean Jaccard, mean cosine of what the step compares, share of pairs whose cosine reaches
the threshold, and share that the step removes. Floors, of which one missed makes the exit status 1:

- of pairs whose cosine reaches the threshold 85 % go, of those from 0.95 on 95 %, by the recipe's number of cells and
  by the square root of the documents (the others lie in different cells: measured 11 % and 5 %, so this is no margin
  for anything else);
- no page goes for one that it is no copy of, and every `similarity` is the cosine;
- cosines of 256 signs are within 1.5 standard errors of those of all words, in the mean (dataeng/semantic/hashed.py).

Of each STAGE (such as runs/crawl-a/dedup) it prints what goes, and how many of the shorter one's shingles both have.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from passages import books, publish, rows

from dataeng import stage
from dataeng.dedup.hashing import hash_shingles, jaccard_from
from dataeng.dedup.minhash import shingles
from dataeng.dedup.normalise import word_hashes
from dataeng.document import digest
from dataeng.recipe import Recipe
from dataeng.semantic import Config, hashed
from dataeng.semantic.vectors import cosines
from dataeng.stage import Manifest
from spark_jobs import semantic
from spark_jobs.session import Engine

CONFIG = Config.model_validate({})
WORDS, RUN, FRAME = 400, 20, 130
KINDS = ("reordered", "cut to 70 %", "framed", "1 word in 16", "1 word in 8")
missed: list[str] = []


def say(what: str, found: str, holds: bool) -> None:
    """One line for a floor."""
    print(f"{'ok    ' if holds else 'MISSED'} {what}: {found}", flush=True)
    if not holds:
        missed.append(what)


def copy_of(words: list[str], kind: str, vocabulary: Sequence[str], chance: random.Random) -> list[str]:
    """A page's words, changed in one of the KINDS; new words are drawn as often as they stand in the books."""
    if kind == "reordered":
        runs = [words[start : start + RUN] for start in range(0, len(words), RUN)]
        return [word for run in chance.sample(runs, len(runs)) for word in run]
    if kind == "cut to 70 %":
        start = chance.randrange(len(words) * 3 // 10)
        return words[start : start + len(words) * 7 // 10]
    if kind == "framed":
        frame = chance.choices(vocabulary, k=FRAME)
        return [*frame[: FRAME // 2], *words, *frame[FRAME // 2 :]]
    each = int(kind.split()[-1])
    places = chance.sample(range(len(words)), len(words) // each)
    return [chance.choice(vocabulary) if place in set(places) else word for place, word in enumerate(words)]


def planted(count: int) -> tuple[list[str], list[tuple[int, int, str]]]:
    """So many texts, and the pairs among them: page, copy, kind."""
    chance = random.Random(0)
    pages = books(count * 3 // 4, WORDS)
    vocabulary = [word for page in pages for word in page]
    texts, pairs = [" ".join(page) for page in pages], []
    for number in range(len(pages) // 3):
        kind = KINDS[number % len(KINDS)]
        pairs.append((number * 3, len(texts), kind))
        texts.append(" ".join(copy_of(pages[number * 3], kind, vocabulary, chance)))
    return texts, pairs


def weights_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """The rarity of words among these texts."""
    counts = np.zeros(hashed.BUCKETS, np.int64)
    for text in texts:
        counts[hashed.buckets(text)] += 1
    return hashed.rarity(counts, len(texts))


def plain_cosine(one: str, other: str, weights: NDArray[np.float32]) -> float:
    """The cosine of two texts' weighted runs of words, none of them projected."""
    vectors: list[dict[int, float]] = []
    for text in (one, other):
        words = word_hashes(text)
        rare = weights[words % np.uint64(hashed.BUCKETS)]
        vector: dict[int, float] = {}
        for length in range(1, CONFIG.ngram_words + 1):
            runs = hash_shingles(words, length)
            times = Counter(runs.tolist())
            for place, run in enumerate(runs.tolist()):
                weight = float(rare[place : place + length].mean())
                vector.setdefault(run, weight * (1 + np.log(times[run])))
        vectors.append(vector)
    left, right = vectors
    dot = sum(value * right.get(run, 0.0) for run, value in left.items())
    return float(dot / np.sqrt(sum(v * v for v in left.values()) * sum(v * v for v in right.values())))


def run(
    root: Path, source: str, engine: Engine | None, **settings: Any
) -> tuple[Manifest, list[dict[str, Any]], float]:
    """The step's manifest, its dropped rows, and its seconds without the start of Spark."""
    tables = {"spark": {"master": "local[2]", "driver_memory": "2g"}, "semantic": {"input": source, **settings}}
    recipe = Recipe("benchmark", str(root), 0, tables)
    engine = engine or Engine(recipe)
    engine.session()
    started = time.monotonic()
    manifest = semantic.step(engine, recipe)
    seconds = time.monotonic() - started
    return manifest, rows(str(root / "semantic"), "dropped", ["id", "matched", "similarity"]), seconds


def of_books(folder: Path, engine: Engine, count: int) -> None:
    """The measurement on planted copies."""
    texts, pairs = planted(count)
    weights = weights_of(texts)
    vectors = [hashed.embed(text, weights, CONFIG.dimensions, CONFIG.ngram_words) for text in texts]
    cosine = {(a, b): float(cosines(vectors[a][None], vectors[b][None])[0, 0]) for a, b, _ in pairs}  # type: ignore[index]
    jaccard = {(a, b): float(jaccard_from(shingles(texts[a]), shingles(texts[b]), 0.0)) for a, b, _ in pairs}
    plain = {(a, b): plain_cosine(texts[a], texts[b], weights) for a, b, _ in pairs[:500]}
    errors = [
        abs(cosine[pair] - exact) / ((1 - exact**2) / np.sqrt(CONFIG.dimensions)) for pair, exact in plain.items()
    ]
    publish(folder / "books", texts)
    print(f"{len(texts):,} pages of {WORDS} words, {len(pairs):,} of them copies; threshold {CONFIG.threshold}")
    say("copies under a Jaccard of 0.8", f"{sum(j < 0.8 for j in jaccard.values()):,}", max(jaccard.values()) < 0.8)
    found = f"{np.mean(errors):.2f} standard errors away in the mean"
    say("cosines of the vectors against those of all words", found, bool(np.mean(errors) <= 1.5))
    number = {digest(str(place)): place for place in range(len(texts))}
    print("seconds: those of the first run have Spark's workers to warm up")
    for cells in (None, round(len(texts) ** 0.5)):
        settings = {"clusters": cells} if cells else {}
        manifest, dropped, seconds = run(folder / "books", "texts", engine, **settings)
        ends = [(number[row["id"]], number[row["matched"]]) for row in dropped]
        gone = {(min(two), max(two)): row["similarity"] for two, row in zip(ends, dropped, strict=True)}
        details = manifest.details
        print(f"k = {details['clusters']} cells (largest {details['largest_cluster']:,}), {seconds:.1f} s", flush=True)
        for kind in KINDS:
            own = [(a, b) for a, b, of in pairs if of == kind]
            high = sum(cosine[pair] >= CONFIG.threshold for pair in own)
            print(
                f"  {kind:12}: {len(own)} pairs, Jaccard {np.mean([jaccard[p] for p in own]):.2f}, cosine "
                f"{np.mean([cosine[p] for p in own]):.3f}, at the threshold {high / len(own):.1%}, removed "
                f"{sum(p in gone for p in own) / len(own):.1%}"
            )
        for least, floor in ((CONFIG.threshold, 0.85), (0.95, 0.95)):
            close = [pair for pair, value in cosine.items() if value >= least]
            recall = sum(pair in gone for pair in close) / len(close)
            what = f"of {len(close)} pairs from {least} on that go, k = {details['clusters']}"
            say(what, f"{recall:.2%} ({floor:.0%})", recall >= floor)
        false = len(gone.keys() - cosine.keys())
        say("pages that go for one that they are no copy of", f"{false} of {len(texts):,}", not false)
        honest = all(abs(value - cosine.get(pair, value)) < 1e-6 for pair, value in gone.items())
        say("similarity is the cosine", str(honest), honest and len(gone) == len(dropped))


def of_stage(root: Path, engine: Engine, source: str) -> None:
    """What goes of a stage's kept documents."""
    texts = {row["id"]: row["text"] or "" for row in rows(source, "kept", ["id", "text"])}
    manifest, dropped, seconds = run(root, os.path.abspath(source), engine)
    shared = []
    for row in dropped:
        one, other = shingles(texts[row["id"]]), shingles(texts[row["matched"]])
        both = np.intersect1d(one, other).size
        shared.append(both / max(1, min(one.size, other.size)))
    print(f"{source}: {len(dropped)} of {len(texts):,} go in {seconds:.1f} s, k = {manifest.details['clusters']}")
    if shared:
        low, middle = sum(share < 0.5 for share in shared), float(np.median(shared))
        print(f"  5-word shingles of the shorter that both have: median {middle:.0%}; in {low} pairs less than half")


def main(arguments: Sequence[str]) -> None:
    """Both measurements."""
    count = int(arguments[0]) if arguments else 6000
    engine = Engine(Recipe("benchmark", "unused", 0, {"spark": {"master": "local[2]", "driver_memory": "2g"}}))
    try:
        with tempfile.TemporaryDirectory() as folder:
            of_books(Path(folder), engine, count)
            for place, source in enumerate(arguments[1:]):
                stage.need_manifest("", source, "this benchmark")
                of_stage(Path(folder, str(place)), engine, source)
    finally:
        engine.stop()
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
