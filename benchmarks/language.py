"""Which language: labelled sentences and pages, by this project's rule and by the bare lid.176.

    python benchmarks/language.py [RUN]

Prints the macro accuracy over the languages that lid.176 has (`nb` is its `no`; with and without it), on all
sentences and on one half of them, then the worst languages with what they were taken for. Word lists and
weights were chosen while looking at both halves: the figures are slightly optimistic. With RUN (a finished
run of configs/labels.toml) also the pages of at least 200 characters.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from dataeng import stage, storage
from dataeng.filter import language
from dataeng.filter.language_codes import canonical, split_label

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
FLOOR, PAGES_FLOOR = 0.91, 0.993
Pairs = list[tuple[str, str]]


def sentences(labels: set[str]) -> Pairs:
    with gzip.open(DATA / "langid" / "sentences.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["text"], row["lang"]) for row in rows if canonical(row["lang"]) in labels]


def macro(pairs: Pairs, guesses: list[str | None], without: str = "") -> tuple[float, dict[str, float]]:
    right, total = collections.Counter[str](), collections.Counter[str]()
    for (_, lang), guess in zip(pairs, guesses, strict=True):
        right[lang] += guess == canonical(lang)
        total[lang] += 1
    shares = {lang: right[lang] / total[lang] for lang in total if lang != without}
    return sum(shares.values()) / len(shares), shares


def report(name: str, pairs: Pairs, guess: Callable[[str], str | None]) -> float:
    begin = time.process_time()
    guesses = [guess(text) for text, _ in pairs]
    seconds = (time.process_time() - begin) / len(pairs)
    second = [i for i, (text, _) in enumerate(pairs) if hashlib.sha256(text.encode()).digest()[0] & 1]
    share, by = macro(pairs, guesses, "nb")
    with_nb, _ = macro(pairs, guesses)
    half, _ = macro([pairs[i] for i in second], [guesses[i] for i in second], "nb")
    print(f"{name}: {share:.4f} over {len(by)} languages ({with_nb:.4f} with nb; {half:.4f} on the second half alone), "
          f"{1e6 * seconds:.0f} µs a sentence")  # fmt: skip
    confused = collections.Counter((lang, g) for (_, lang), g in zip(pairs, guesses, strict=True) if g != lang)
    for lang, value in sorted(by.items(), key=lambda item: item[1])[:10]:
        taken = [f"{other} {n}" for (one, other), n in confused.most_common() if one == lang][:4]
        print(f"    {lang} {value:.3f}: taken for {', '.join(taken)}")
    return share


def pages(root: str) -> Iterator[tuple[str, str]]:
    manifest = stage.need_manifest(root, "extract", "this benchmark")
    with gzip.open(DATA / "crawl-a" / "labels.jsonl.gz", "rt", encoding="utf-8") as lines:
        labels = {(row["file"], row["offset"]): row for row in map(json.loads, lines)}
    for path in stage.table_paths(storage.join(root, "extract"), manifest):
        for row in pq.read_table(path, columns=["file", "offset", "text"]).to_pylist():
            label = labels.get((Path(row["file"]).name, row["offset"]))
            if label and label["kind"] == "page" and label.get("lang") and len(row["text"]) >= 200:
                yield row["text"], label["lang"]


def main() -> None:
    model = language.load(language.default_model())
    labels = {split_label(name)[0] for name in model.getLabels("strict")[0]}

    def bare(text: str) -> str | None:
        found = model.predict(language.one_line(text) + "\n", 1, 0.0, "strict")
        return split_label(found[0][1])[0] if found else None

    pairs = sentences(labels)
    report("bare lid.176", pairs, bare)
    holds = report("filter.language", pairs, lambda text: language.predict(text, model)[0]) >= FLOOR
    for root in sys.argv[1:2]:
        found = list(pages(root))
        for name, guess in (("bare", bare), ("filter.language", lambda text: language.predict(text, model)[0])):
            share = sum(guess(text) == canonical(lang) for text, lang in found) / len(found)
            print(f"pages of at least 200 characters, {name}: {share:.4f} of {len(found)}")
        holds = holds and share >= PAGES_FLOOR
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
