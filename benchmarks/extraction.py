"""Main text: quality and speed of `extract.engine = "quick"` against trafilatura, in one process on one core.

    python benchmarks/extraction.py [every=8] [repeats=3]

F1 over the strings that DATA_DIR/extraction/snippets says to keep and to drop, counted as trafilatura's own
evaluation does, with a paired bootstrap over pages; pages per CPU-second on those pages and on every EVERYth
labelled `page` of DATA_DIR/crawl-a; and how far the texts agree, by the path that a page took. The engines take
turns, and each of ours begins each turn without remembered verdicts. Exit status 1 where a floor is missed.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import trafilatura

from dataeng import warc
from dataeng.cli import UserError, run
from dataeng.extract import quick
from dataeng.extract.charset import decode
from dataeng.extract.engines import agreement, engine_of
from dataeng.extract.page import Task, work
from dataeng.extract.payload import body_of, message_of

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
RESAMPLES, FLOOR, AIM = 10_000, 1.5, 3.0
Extractor = Callable[[str], tuple[str, str]]


def snippets() -> tuple[list[str], list[tuple[list[str], list[str]]]]:
    """The pages, and for each what must be kept and what dropped."""
    pages, wanted = [], []
    with gzip.open(DATA / "extraction/snippets.jsonl.gz", "rt", encoding="utf-8") as lines:
        for item in map(json.loads, lines):
            pages.append(decode(base64.b64decode(item["html_base64"]))[0])
            wanted.append((item["with"], item["without"]))
    return pages, wanted


def crawl(every: int) -> list[str]:
    """Every so many'th undamaged labelled page of crawl-a."""
    with gzip.open(DATA / "crawl-a/labels.jsonl.gz", "rt", encoding="utf-8") as lines:
        labels = {(d["file"], d["offset"]) for d in map(json.loads, lines) if d["kind"] == "page" and not d["damaged"]}
    pages = []
    for path in sorted((DATA / "crawl-a").glob("*.warc.gz")):
        for item in warc.read(str(path), path.name, 64 << 20):
            if isinstance(item, warc.Capture) and (item.file, item.offset) in labels:
                message = message_of(item)
                pages.append((body_of(message, 8 << 20), message.headers.get("content-type", "")))
    return [decode(*page)[0] for page in pages[::every]]


def plain(page: str) -> tuple[str, str]:
    """trafilatura, called as its users call it."""
    return trafilatura.extract(page, include_comments=False) or "", "trafilatura"


def bare(page: str) -> tuple[str, str]:
    """trafilatura without what surrounds the extraction."""
    found = trafilatura.bare_extraction(page, include_comments=False, with_metadata=False)
    return (found.text or "" if found else ""), "trafilatura"


def ours(page: str) -> tuple[str, str]:
    """Engine quick, from HTML to text."""
    tree = quick.load(page)
    return engine_of("quick")(tree, page, "") if tree is not None else ("", "none")


def whole(page: str) -> tuple[str, str]:
    """All that the job does with a page: caps, decoding, metadata, repair, white space."""
    found = work(Task(page.encode("utf-8", "replace"), "text/html; charset=utf-8", 1 << 30, 250, 1))
    return found.text or "", found.metadata.get("extract_path", "none")


ENGINES: dict[str, Extractor] = {"trafilatura": plain, "bare_extraction": bare, "quick": ours, "whole page": whole}


def counts(texts: Sequence[str], wanted: Sequence[tuple[list[str], list[str]]]) -> np.ndarray:
    """Per page: strings rightly kept, wrongly kept, wrongly dropped. Shape (pages, 3)."""
    rows = []
    for text, (keep, drop) in zip(texts, wanted, strict=True):
        kept = sum(part in text for part in keep)
        rows.append((kept, sum(part in text for part in drop), len(keep) - kept))
    return np.array(rows, dtype=np.int64)


def f1(total: np.ndarray) -> np.ndarray:
    """F1 of sums of counts; the last axis holds the three counts."""
    return 2 * total[..., 0] / (2 * total[..., 0] + total[..., 1] + total[..., 2])


def quality(pages: Sequence[str], wanted: Sequence[tuple[list[str], list[str]]]) -> bool:
    """Print F1 of each engine, and the difference with its interval; whether it is not significantly below."""
    found = {name: counts([engine(page)[0] for page in pages], wanted) for name, engine in ENGINES.items()}
    for name, table in found.items():
        print(f"F1 on {len(pages)} pages of snippets, {name}: {f1(table.sum(0)):.4f}")
    draws = np.random.default_rng(0).integers(len(pages), size=(RESAMPLES, len(pages)))
    differences = f1(found["quick"][draws].sum(1)) - f1(found["trafilatura"][draws].sum(1))
    low, high = np.quantile(differences, (0.025, 0.975))
    difference = f1(found["quick"].sum(0)) - f1(found["trafilatura"].sum(0))
    print(f"quick less trafilatura: {difference:+.4f} (95 % of {RESAMPLES:,} resamples: {low:+.4f} to {high:+.4f})")
    return bool(high >= 0)


def agreements(name: str, pages: Sequence[str]) -> None:
    """Print how far quick and plain trafilatura agree, by path."""
    by_path: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for page in pages:
        (text, path), (peer, _) = ours(page), plain(page)
        by_path[path].append((normalize("NFC", text).strip() == peer.strip(), agreement(text, peer)))
    for path, values in sorted(by_path.items()):
        equal, words = sum(same for same, _ in values), statistics.mean(value for _, value in values)
        print(f"{name}, {path}: {len(values)} pages, {equal} with equal text, mean F1 of words {words:.4f}")


def seconds(engine: Extractor, pages: Sequence[str]) -> float:
    """CPU seconds for all pages, beginning without remembered verdicts."""
    quick.forget()
    begun = time.process_time()
    for page in pages:
        engine(page)
    return time.process_time() - begun


def speed(name: str, pages: Sequence[str], repeats: int) -> bool:
    """Print pages per CPU-second of each engine; whether quick reaches its floor."""
    for engine in ENGINES.values():
        engine(pages[0])
    taken: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for _ in range(repeats):
        for engine, function in ENGINES.items():
            taken[engine].append(seconds(function, pages))
    peer = statistics.median(taken["trafilatura"])
    for engine, values in taken.items():
        middle = statistics.median(values)
        print(f"{name}, {engine}: {len(pages) / middle:.1f} pages per CPU-second, {peer / middle:.2f} × trafilatura")
    ratio = peer / statistics.median(taken["quick"])
    print(f"{'ok  ' if ratio >= FLOOR else 'MISS'} {name}: {ratio:.2f} (floor {FLOOR}, aim {AIM})")
    return ratio >= FLOOR


def main(arguments: Sequence[str]) -> None:
    options = {"every": 8, "repeats": 3}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options or not value.isdigit() or int(value) < 1:
            raise UserError(f"{argument}: use every=N, repeats=N")
        options[key] = int(value)
    if not (DATA / "extraction/snippets.jsonl.gz").exists():
        raise UserError(f"{DATA}: has no extraction/snippets.jsonl.gz: set DATA_DIR")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pages, wanted = snippets()
    corpora = {"snippets": pages, "crawl-a": crawl(options["every"])}
    held = [quality(pages, wanted)]
    held += [speed(name, found, options["repeats"]) for name, found in corpora.items()]
    for name, found in corpora.items():
        agreements(name, found)
    if not all(held):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
