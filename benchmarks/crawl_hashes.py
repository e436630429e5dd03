"""Equal tables from any partitioning and after a kill: the hashes of a crawl's stages in several roots.

    python benchmarks/crawl_hashes.py OUT [RECIPE] [KEY=VALUE …]      (default: configs/labels.toml)

Runs the data pipeline at ``spark.partitions`` 1, 2 and 7 in roots below OUT, and once more in a root where
the driver is killed (SIGKILL) at a random moment, then run again. Prints each stage's hash where all agree
and what differs where not; exit status 1 then.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from dataeng import stage

REPO = Path(__file__).parent.parent
STAGES = ("extract", "filter", "decontaminate", "dedup", "publish")


def pipeline(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, REPO / "spark_jobs/pipeline.py", *arguments], start_new_session=True)


def killed(arguments: list[str], seconds: float) -> str:
    """Run until ``seconds`` have passed, kill the driver and all that it started, then run to the end."""
    process = pipeline(arguments)
    try:
        process.wait(random.uniform(0.15, 0.6) * seconds)
        when = "after its end"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        when = "while running"
    if pipeline(arguments).wait():
        sys.exit("error: the run after the kill failed")
    return when


def hashes(root: str) -> dict[str, str]:
    found = {}
    for name in STAGES:
        manifest = stage.need_manifest(root, name, "this check")
        if manifest.nondeterministic:
            print(f"{root}: {name}: {manifest.nondeterministic} rows met a clock or memory limit")
        found |= {f"{name}.{table}": entry.hash for table, entry in manifest.tables.items()}
    return found


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/crawl_hashes.py OUT [RECIPE] [KEY=VALUE …]")
    out, arguments = sys.argv[1], sys.argv[2:] or ["configs/labels.toml"]
    runs, seconds = {}, float("inf")
    for partitions in (1, 2, 7):
        root = f"{out}/partitions-{partitions}"
        shutil.rmtree(root, ignore_errors=True)
        begun = time.monotonic()
        if pipeline([*arguments, f"root={root}", f"spark.partitions={partitions}"]).wait():
            sys.exit("error: the pipeline failed")
        took = time.monotonic() - begun
        runs[f"{partitions} partitions"], seconds = hashes(root), min(seconds, took)
        print(f"{partitions} partitions: {took:.0f} s", flush=True)
    root = f"{out}/killed"
    shutil.rmtree(root, ignore_errors=True)
    print(f"killed {killed([*arguments, f'root={root}'], seconds)}, then run again", flush=True)
    runs["killed"] = hashes(root)
    first, different = next(iter(runs.values())), 0
    for table, value in first.items():
        values = {name: found.get(table) for name, found in runs.items()}
        same = set(values.values()) == {value}
        different += not same
        print(f"{'ok  ' if same else 'MISS'} {table}: {value if same else values}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
