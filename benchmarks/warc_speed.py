"""Reading captures beside FastWARC: records per CPU-second on sound gzip files, blocks read through.

taskset -c 1 python benchmarks/warc_speed.py [FOLDER] [REPEATS]

FOLDER holds .warc.gz files (default $DATA_DIR/crawl-a); those with damage are left out. FastWARC's HTTP parsing is
off, as this reader leaves it to extraction as well. Both run in this process, alternating; the best run counts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastwarc.warc import ArchiveIterator

from dataeng import warc

FLOOR = 0.8  # of FastWARC's speed


def ours(path: str) -> tuple[int, int]:
    """Records of a file and bytes of its captures."""
    records = size = 0
    for item in warc.read(path):
        records += 1
        if isinstance(item, warc.Capture):
            size += len(item.block)
    return records, size


def fastwarc(path: str) -> tuple[int, int]:
    """The same by FastWARC."""
    records = size = 0
    for record in ArchiveIterator(path, parse_http=False):
        records += 1
        block = record.reader.read()
        if str(record.record_type).rpartition(".")[2] in warc.CAPTURES:
            size += len(block)
    return records, size


def measure(read: Callable[[str], tuple[int, int]], paths: list[str]) -> tuple[float, tuple[int, int]]:
    """CPU seconds and what was read."""
    started = time.process_time()
    found = [read(path) for path in paths]
    return time.process_time() - started, (sum(n for n, _ in found), sum(size for _, size in found))


def main() -> None:
    """Print both speeds; exit 1 below the floor or where the two read different things."""
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("DATA_DIR", "../shared/data") + "/crawl-a"
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    paths = [str(path) for path in sorted(Path(folder).glob("*.warc.gz"))]
    paths = [path for path in paths if not any(isinstance(item, warc.Damage) for item in warc.read(path))]
    best: dict[str, float] = {}
    found = {}
    for _ in range(repeats):
        for read in (ours, fastwarc):
            seconds, found[read.__name__] = measure(read, paths)
            best[read.__name__] = min(seconds, best.get(read.__name__, seconds))
    records = found["ours"][0]
    for name, seconds in best.items():
        print(f"{name:9} {records / seconds:10,.0f} records per CPU-second")
    ratio = best["fastwarc"] / best["ours"]
    print(f"{len(paths)} sound files, {records:,} records: {ratio:.2f} × FastWARC (floor {FLOOR})")
    if found["ours"] != found["fastwarc"] or ratio < FLOOR:
        sys.exit(f"below the floor, or unlike records: {found}")


if __name__ == "__main__":
    main()
