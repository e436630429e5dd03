"""Deduplication of synthetic corpora of growing size, on two cores: seconds, memory, bytes shuffled, what it found.

    python benchmarks/dedup_scale.py [DOCUMENTS …] [out=FOLDER] [driver_memory=6g] [seed=0]

Default: 10000 100000 1000000. Each size runs in a process of its own: documents by ``dedup_corpus`` (clusters of
power-law sizes, a tenth of the documents in one band) are published as a stage, a session is started and warmed by
2,000 documents, and the step ``dedup`` is timed from published rows to published tables. Memory is the resident
sets of driver, JVM and Python workers together, sampled; bytes shuffled are what Spark's tasks wrote for exchanges.

Floors: precision 1 and no cluster lost; at most 12 GB; from 100,000 documents on, seconds at most 1.3 x linear.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dedup_corpus import STAGE, plan, publish, score

from dataeng.cli import UserError, run
from dataeng.recipe import Recipe

SIZES = (10_000, 100_000, 1_000_000)
WARM_DOCUMENTS = 2_000
MEMORY_FLOOR, TIME_FLOOR, LINEAR_FROM = 12e9, 1.3, 100_000
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


def used(root: int) -> tuple[int, float]:
    """Bytes resident, and seconds of CPU time used so far, of a process and all that it started (and saw end)."""
    parents, bytes_of, seconds_of = {}, {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                pages = int(Path(entry.path, "statm").read_text().split()[1])
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(fields[1])
            seconds_of[int(entry.name)] = sum(map(int, fields[11:15])) / TICKS
            bytes_of[int(entry.name)] = pages * PAGE
    family, news = {root}, {root}
    while news:
        news = {child for child, parent in parents.items() if parent in news} - family
        family |= news
    return sum(bytes_of.get(one, 0) for one in family), sum(seconds_of.get(one, 0.0) for one in family)


class Peak(threading.Thread):
    """The greatest resident size of this process and its children while it ran."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._ended = 0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.2):
            self.bytes = max(self.bytes, used(os.getpid())[0])

    def stop(self) -> int:
        """The peak, in bytes."""
        self._ended.set()
        self.join()
        return self.bytes


def written(session) -> dict[str, int]:
    """What all tasks of a session wrote so far: for exchanges, spilled, in all."""
    context = session.sparkContext
    empty, quantiles = context._jvm.java.util.ArrayList, context._gateway.new_array(context._jvm.double, 0)
    stages = context._jsc.sc().statusStore().stageList(empty(), False, False, quantiles, empty())
    found = {"shuffled": 0, "spilled": 0, "output": 0}
    for number in range(stages.size()):
        data = stages.apply(number)
        found["shuffled"] += data.shuffleWriteBytes()
        found["spilled"] += data.diskBytesSpilled()
        found["output"] += data.outputBytes()
    return found


def measure(documents: int, out: Path, driver_memory: str, seed: int) -> dict[str, float]:
    """One size: made, deduplicated, scored."""
    from spark_jobs import dedup
    from spark_jobs.session import Engine

    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    planned = plan(documents, seed)
    made = publish(out, planned, seed)
    publish(out / "warm", plan(WARM_DOCUMENTS, 1), 1)
    found: dict[str, float] = {"documents": documents, "made_seconds": time.monotonic() - begun}
    conf = {"spark.ui.retainedStages": "100000", "spark.ui.liveUpdate.period": "0"}
    tables = {
        "spark": {"master": "local[2]", "driver_memory": driver_memory, "conf": conf},
        "dedup": {"input": STAGE},
    }
    recipe = Recipe("dedup_scale.toml", str(out), 0, tables)
    engine = Engine(recipe)
    begun = time.monotonic()
    engine.session()
    found["start_seconds"] = time.monotonic() - begun
    begun = time.monotonic()
    dedup.step(engine, Recipe("dedup_scale.toml", str(out / "warm"), 0, tables))
    found["warm_seconds"] = time.monotonic() - begun
    before, cpu, peak, begun = written(engine.session()), used(os.getpid())[1], Peak(), time.monotonic()
    peak.start()
    manifest = dedup.step(engine, recipe)
    found |= {"seconds": time.monotonic() - begun, "peak_bytes": peak.stop()}
    found["cpu_seconds"] = used(os.getpid())[1] - cpu
    found |= {name: value - before[name] for name, value in written(engine.session()).items()}
    engine.stop()
    found |= score(str(out / "dedup"), manifest, planned)
    found |= {"input_bytes": sum(file.bytes for file in made.tables["kept"].files), "copies": planned.copies}
    found |= {name: manifest.details[name] for name in ("component_rounds", "bands_cut_off")}
    return found | {"dropped": manifest.counts["dropped"]}


def show(found: dict[str, float]) -> None:
    """One size's figures."""
    of = found["documents"]
    made = f"made in {found['made_seconds']:.0f} s, session {found['start_seconds']:.0f} s"
    shuffled = f"{found['shuffled'] / 1e6:,.1f} MB shuffled ({found['shuffled'] / of:,.0f} bytes a document)"
    print(f"{of:>9,} documents ({found['input_bytes'] / 1e6:,.0f} MB; {made}, warmed {found['warm_seconds']:.0f} s)")
    print(f"    {found['seconds']:8.1f} s, {found['cpu_seconds']:.1f} s of CPU time", end="; ")
    print(f"{found['peak_bytes'] / 1e9:.2f} GB resident; {shuffled}")
    print(f"    {found['spilled'] / 1e6:,.1f} MB spilled, {found['output'] / 1e6:,.1f} MB written")
    print(f"    {found['dropped']:,} dropped of {found['copies']:,} planned", end=": ")
    print(f"recall {found['recall']:.4f}, precision {found['precision']:.4f}", end="; ")
    print(f"component rounds {found['component_rounds']}, bands cut off {found['bands_cut_off']}", flush=True)


def floors(all_found: Sequence[dict[str, float]]) -> list[tuple[bool, str]]:
    """Each floor with whether it was reached."""
    said = []
    for found in all_found:
        name = f"{found['documents']:,} documents"
        right = found["precision"] == 1 and not found["clusters_lost"]
        said.append(
            (right, f"{name}: precision {found['precision']:.4f} (1), clusters lost {found['clusters_lost']} (0)")
        )
        size = found["peak_bytes"]
        said.append((size <= MEMORY_FLOOR, f"{name}: {size / 1e9:.2f} GB resident (at most {MEMORY_FLOOR / 1e9:.0f})"))
    large = [found for found in all_found if found["documents"] >= LINEAR_FROM]
    for one, other in itertools.pairwise(large):
        linear = one["seconds"] * other["documents"] / one["documents"]
        times = other["seconds"] / linear
        what = f"{other['documents']:,} documents: {times:.2f} x linear from {one['documents']:,}"
        said.append((times <= TIME_FLOOR, f"{what} (at most {TIME_FLOOR})"))
    return said


def main(arguments: Sequence[str]) -> None:
    """Measure each size in a process of its own and print the floors."""
    options = dict(text.split("=", 1) for text in arguments if "=" in text)
    sizes = [text for text in arguments if "=" not in text] or list(map(str, SIZES))
    if not all(size.isdigit() and int(size) >= 1000 for size in sizes) or options.keys() - {
        "out",
        "driver_memory",
        "seed",
        "one",
    }:
        raise UserError(
            "usage: python benchmarks/dedup_scale.py [DOCUMENTS …] [out=FOLDER] [driver_memory=6g] [seed=0]"
        )
    memory, seed = options.get("driver_memory", "6g"), int(options.get("seed", "0"))
    if "one" in options:
        found = measure(int(sizes[0]), Path(options["out"]), memory, seed)
        Path(options["one"]).write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(dir=options.get("out")) as folder:
        all_found = []
        for size in sizes:
            answer = Path(folder, "found.json")
            more = [f"out={folder}/run", f"driver_memory={memory}", f"seed={seed}", f"one={answer}"]
            subprocess.run([sys.executable, __file__, size, *more], check=True)
            all_found.append(json.loads(answer.read_text()))
            show(all_found[-1])
    said = floors(all_found)
    for reached, text in said:
        print(f"{'ok    ' if reached else 'MISSED'} {text}")
    sys.exit(not all(reached for reached, _ in said))


if __name__ == "__main__":
    run(main)
