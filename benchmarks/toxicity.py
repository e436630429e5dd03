"""Abuse: the shipped model's held-back figures, neutral sentences that name groups, and a labelled crawl's pages.

python benchmarks/toxicity.py [RUN]      (default: runs/labels, a run of configs/labels.toml)
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataeng import stage, storage
from dataeng.document import Document, from_row
from dataeng.filter import toxicity

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
NEUTRAL = Path(__file__).parent / "neutral_groups.txt"


def rows_of(root: str, name: str, table: str) -> list[dict]:
    manifest = stage.need_manifest(root, name, "this benchmark")
    paths = stage.table_paths(storage.join(root, name), manifest, table)
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def news() -> list[str]:
    """Newspaper articles, none of them known to be abusive."""
    files = sorted((DATA / "neardup" / "mccormick").glob("*.train"))
    lines = {line for path in files for line in path.read_text(encoding="utf-8", errors="replace").split("\n")}
    return sorted(line.partition(" ")[2] for line in lines if len(line) > 300)


def main() -> None:
    root = (sys.argv[1:] or ["runs/labels"])[0]
    config, missed = toxicity.Config(), 0

    def say(what: str, value: float, holds: bool) -> None:
        nonlocal missed
        missed += not holds
        print(f"{'ok  ' if holds else 'MISS'} {what}: {value:.4f}")

    facts = json.loads(Path(config.files()[0]).with_suffix(".json").read_text())["held_back"]["toxicity/train.jsonl.gz"]
    say("held back: F1 of the class ok", facts["negative"]["f1"], facts["negative"]["f1"] >= 0.80)
    say("held back: ROC-AUC", facts["roc_auc"], facts["roc_auc"] >= 0.97)
    lines = NEUTRAL.read_text(encoding="utf-8").splitlines()

    def scores_of(texts: list[str]) -> np.ndarray:
        return np.array([toxicity.scores(Document("x", text, language="en"), config)["toxicity"] for text in texts])

    found, articles = scores_of(lines), scores_of(news())
    say("neutral sentences dropped", (found > config.threshold).mean(), (found > config.threshold).mean() <= 0.10)
    with gzip.open(DATA / "crawl-a" / "labels.jsonl.gz", "rt", encoding="utf-8") as rows:
        labels = {(row["file"], row["offset"]): row for row in map(json.loads, rows)}
    scores: dict[str, list[float]] = {"toxic": [], "page": []}
    begin, count = time.process_time(), 0
    raw = {row["id"]: row for row in rows_of(root, "extract", "kept")}
    for row in (*rows_of(root, "filter", "kept"), *rows_of(root, "filter", "dropped")):
        label = labels.get((Path(row["file"]).name, row["offset"]))
        if label and label["kind"] in scores and row["id"] in raw:
            document = from_row(raw[row["id"]] | {"language": row["language"]})
            scores[label["kind"]].append(toxicity.scores(document, config).get("toxicity", 0.0))
            count += 1
    seconds = time.process_time() - begin
    share = {kind: float((np.array(values) > config.threshold).mean()) for kind, values in scores.items()}
    say("toxic pages dropped", share["toxic"], share["toxic"] >= 0.96)
    say("clean pages lost", share["page"], share["page"] <= 0.005)
    print(f"     {1000 * seconds / max(count, 1):.2f} ms of CPU a document, reading included")
    for bound in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98):
        parts = [f"{kind} {(np.array(values) > bound).mean():.4f}" for kind, values in scores.items()]
        parts += [f"neutral {(found > bound).mean():.4f}", f"news {(articles > bound).mean():.4f}"]
        print(f"     at {bound}: {', '.join(parts)}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
