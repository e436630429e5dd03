"""Masking personal data: CPU time a document, what is masked on a run's documents, and what the labels injected.

python benchmarks/personal_data.py [RUN]      (default: runs/labels, a run of configs/labels.toml)
"""

from __future__ import annotations

import collections
import gzip
import json
import os
import re
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from dataeng import stage, storage
from dataeng.document import from_row
from dataeng.filter.personal_data import KINDS, Config, mask, transform

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
PLACEHOLDER = re.compile(r"<(?:CARD|IBAN|API_KEY|PRIVATE_KEY)>")


def main() -> None:
    root = (sys.argv[1:] or ["runs/labels"])[0]
    manifest = stage.need_manifest(root, "extract", "this benchmark")
    paths = stage.table_paths(storage.join(root, "extract"), manifest)
    documents = [from_row(row) for path in paths for row in pq.read_table(path).to_pylist()]
    config, counts, examples = Config(), collections.Counter[str](), []
    begin = time.process_time()
    masked = [transform(document, config) for document in documents]
    seconds = time.process_time() - begin
    for document in masked:
        counts.update({kind: int(document.scores[f"masked.{kind}"]) for kind in KINDS})
        text = document.text or ""
        examples += [text[max(0, m.start() - 60) : m.end() + 30] for m in PLACEHOLDER.finditer(text)]
    print(f"{1000 * seconds / len(documents):.2f} ms of CPU a document, {len(documents)} documents")
    for kind in KINDS:
        begin = time.process_time()
        for document in documents:
            mask(document.text or "", Config(kinds=[kind]), document.language)
        print(f"    {kind}: {1000 * (time.process_time() - begin) / len(documents):.3f} ms, {counts[kind]} masked")
    print("\n".join(f"    … {' '.join(example.split())}" for example in examples[:20]))
    with gzip.open(DATA / "crawl-a" / "labels.jsonl.gz", "rt", encoding="utf-8") as lines:
        labels = [label for label in map(json.loads, lines) if label["kind"] == "pii"]
    needles = [label[key] for label in labels for key in ("email", "ip", "phone")]
    whole = "\n".join(f"{d.text} {d.url} {d.metadata}" for d in masked)
    left = [needle for needle in needles if needle in whole]
    print(f"injected personal data left: {len(left)} of {len(needles)}")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
