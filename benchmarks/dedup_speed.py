"""The whole near-duplicate removal against datatrove's four MinHash stages, two workers against local[2].

    python benchmarks/dedup_speed.py PEER [STAGE …] [documents=20000] [runs=2]

PEER is a Python interpreter with datatrove[io,processing] (an environment of its own). STAGE is a published stage
such as runs/crawl-a/extract (the default, where it is); last comes a synthetic corpus of ``dedup_corpus``. Equal
settings: shingles of five words, 14 bands of 8 rows, 64-bit hashes. Here: from published rows to the published tables
kept, dropped and signatures, in a session that has run once before; its start and that first run are printed, not
counted. There: signature, buckets, cluster and filter, from JSONL to kept JSONL, start of its processes included.
Both sides take turns; the fastest runs count. Floor: 5 times as fast.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dedup_corpus import STAGE, jsonl, plan, publish

from dataeng import stage
from dataeng.cli import UserError, run
from dataeng.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parent.parent
WORKERS, FLOOR = 2, 5.0


def ours(engine, tables: dict, out: Path) -> tuple[float, int]:
    """Seconds of the step, and the documents kept."""
    from spark_jobs import dedup

    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    manifest = dedup.step(engine, Recipe("dedup_speed.toml", str(out), 0, tables))
    return time.monotonic() - begun, manifest.counts["kept"]


def peers(interpreter: str, documents: Path, out: Path) -> tuple[float, int]:
    """Seconds of the four stages, and the documents kept."""
    shutil.rmtree(out, ignore_errors=True)
    script = REPOSITORY / "benchmarks/peers/datatrove_dedup.py"
    done = subprocess.run(
        [interpreter, script, documents, out, str(WORKERS)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{interpreter}: datatrove failed: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return sum(found["seconds"].values()), found["kept"]


def compare(interpreter: str, folder: Path, runs: int, out: Path) -> bool:
    """Both sides on one published stage; whether the floor was reached."""
    from spark_jobs.session import Engine

    found = stage.need_manifest(str(folder.parent), folder.name, "dedup_speed")
    jsonl(out / "jsonl", stage.table_paths(str(folder), found), WORKERS)
    spark = {"master": f"local[{WORKERS}]", "driver_memory": "2g"}
    tables = {"spark": spark, "dedup": {"input": str(folder)}}
    engine = Engine(Recipe("dedup_speed.toml", str(out / "run"), 0, tables))
    begun = time.monotonic()
    engine.session()
    start = time.monotonic() - begun
    first, *_ = ours(engine, tables, out / "run")
    print(f"{folder}: {found.tables['kept'].rows:,} documents", flush=True)
    print(f"  not counted: start of the session {start:.1f} s, first run in it {first:.1f} s", flush=True)
    best = {"millrace": float("inf"), "datatrove": float("inf")}
    for number in range(runs):
        for name, (seconds, kept) in (
            ("millrace", ours(engine, tables, out / "run")),
            ("datatrove", peers(interpreter, out / "jsonl", out / "peer")),
        ):
            print(f"  run {number + 1}: {name:10s} {seconds:7.1f} s   {kept:,} kept", flush=True)
            best[name] = min(best[name], seconds)
    engine.stop()
    ratio = best["datatrove"] / best["millrace"]
    print(f"{'ok    ' if ratio >= FLOOR else 'MISSED'} {folder.name}: {ratio:.1f} x datatrove (at least {FLOOR:.0f})")
    return ratio >= FLOOR


def main(arguments: Sequence[str]) -> None:
    """Compare on every stage named, then on the synthetic corpus."""
    plain = [text for text in arguments if "=" not in text]
    options = dict(text.split("=", 1) for text in arguments if "=" in text)
    if not plain or options.keys() - {"documents", "runs"}:
        raise UserError("usage: python benchmarks/dedup_speed.py PEER [STAGE …] [documents=20000] [runs=2]")
    interpreter = plain[0]
    if subprocess.run([interpreter, "-c", "import datatrove, spacy"], capture_output=True).returncode:
        raise UserError(f"{interpreter}: has no datatrove: install datatrove[io,processing] there")
    folders = [Path(text).resolve() for text in plain[1:]]
    crawl = REPOSITORY / "runs/crawl-a/extract"
    if not folders and crawl.exists():
        folders = [crawl]
    elif not folders:
        print(f"{crawl} is not there: only the synthetic corpus is measured")
    with tempfile.TemporaryDirectory() as made:
        documents = int(options.get("documents", "20000"))
        if documents:
            publish(Path(made), plan(documents))
            folders.append(Path(made, STAGE))
        reached = [compare(interpreter, folder, int(options.get("runs", "2")), Path(made)) for folder in folders]
    sys.exit(not all(reached))


if __name__ == "__main__":
    run(main)
