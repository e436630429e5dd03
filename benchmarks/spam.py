"""Spam: the shipped quality model's held-back mails, and a labelled crawl's pages under it and the toxicity rule.

python benchmarks/spam.py [RUN]      (default: runs/labels, a run of configs/labels.toml)

Settings and threshold were chosen on held-back mails, the crawl's figures were seen meanwhile. Its spam pages
hold mails that training left out, but of the same collection (and so of the same campaigns): other spam is
not promised to be found as well.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataeng import stage, storage
from dataeng.document import Document, from_row
from dataeng.filter import bounds, quality, toxicity

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))


def documents(root: str) -> list[tuple[str, Document]]:
    """The extracted documents of a run with their kinds, each in the language that its filter step found."""
    with gzip.open(DATA / "crawl-a" / "labels.jsonl.gz", "rt", encoding="utf-8") as lines:
        kinds = {(row["file"], row["offset"]): row["kind"] for row in map(json.loads, lines)}

    def rows(name: str, *tables: str) -> list[dict]:
        manifest, folder = stage.need_manifest(root, name, "this benchmark"), storage.join(root, name)
        paths = [path for table in tables for path in stage.table_paths(folder, manifest, table)]
        return [row for path in paths for row in pq.read_table(path).to_pylist()]

    languages = {row["id"]: row["language"] for row in rows("filter", "kept", "dropped")}
    found = [row | {"language": languages.get(row["id"])} for row in rows("extract", "kept")]
    return [(kinds.get((Path(row["file"]).name, row["offset"]), "none"), from_row(row)) for row in found]


def held_back(path: str) -> None:
    """Print what the model's own file says of the held-back mails."""
    facts = json.loads(Path(path).with_suffix(".json").read_text())
    mails = facts["held_back"]["quality/spam_ham.jsonl.gz"]
    spam, table = mails["positive"], mails["confusion"]
    print(f"     held-back mails: {mails['examples']}, ROC-AUC {mails['roc_auc']}; spam, at {facts['threshold']}: "
          f"precision {spam['precision']}, recall {spam['recall']}; {table}")  # fmt: skip
    print(f"     all held-back texts: {facts['held_back']['all']['confusion']}")


def main() -> None:
    """Print the figures; leave with 1 where a floor is missed."""
    root = (sys.argv[1:] or ["runs/labels"])[0]
    spam, abuse, missed = quality.Config(), toxicity.Config(), 0
    held_back(spam.files()[0])
    scores: dict[str, list[float]] = defaultdict(list)
    lost: dict[str, list[bool]] = defaultdict(list)
    seconds, pages = 0.0, documents(root)
    for kind, document in pages:
        begin = time.process_time()
        found = quality.scores(document, spam)
        seconds += time.process_time() - begin
        scores[kind].append(found.get("quality", 1.0))
        kept = bounds.decide(found, quality.limits(spam)).keep
        lost[kind].append(not (kept and toxicity.decide(toxicity.scores(document, abuse), abuse).keep))
    dropped = float((np.array(scores["spam"]) < spam.threshold).mean())
    clean = float(np.mean(lost["page"]))
    for what, number, value, holds in (
        ("spam pages dropped by the quality rule", len(scores["spam"]), dropped, dropped >= 0.90),
        ("clean pages lost to the quality and toxicity rules", len(lost["page"]), clean, clean <= 0.005),
    ):
        missed += not holds
        print(f"{'ok  ' if holds else 'MISS'} {what}: {value:.4f} of {number}")
    print(f"     {1000 * seconds / max(len(pages), 1):.2f} ms of CPU a document")
    for bound in (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7):
        parts = [f"{kind} {(np.array(scores[kind]) < bound).mean():.4f}" for kind in ("spam", "page", "pii", "toxic")]
        print(f"     at {bound}: {', '.join(parts)}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
