"""What extracting repeated captures once costs and saves: the step `extract` with `extract.once` on and off.

    python benchmarks/extract_once.py OUT [CAPTURES] [runs=2] [copies=1] [none=1]

CAPTURES is a folder of .warc.gz files (default: DATA_DIR/crawl-a). The same is done with a copy from which all
repeats were taken out, where reading the digests first is a loss (none=0 leaves that out). With ``copies`` the corpus
is that many times as large: each copy of a page says which one it is, so repeats stay within their copy. Both ways
take turns on two workers. Prints seconds on the clock (from the manifest, start-up not counted), CPU seconds of all
processes (start-up counted), and whether the tables' hashes are equal; exit status 1 where they are not.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dataeng import stage, warc
from dataeng.cli import UserError, run
from dataeng.extract import Config
from dataeng.extract.captures import key_of

REPOSITORY = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def copied(captures: Path, folder: Path, copies: int, repeats: bool) -> int:
    """Write so many copies of the captures, the pages of each made its own; without ``repeats`` equal ones once.

    Returns how many captures were left out.
    """
    folder.mkdir(parents=True)
    config, seen, left_out = Config(input=["x"], check_share=0), set(), 0
    for path in sorted(captures.glob("*.warc.gz")):
        for number in range(copies):
            with open(folder / f"{number}-{path.name}", "wb") as file:
                for item in warc.read(str(path)):
                    if not isinstance(item, warc.Capture):
                        continue
                    key = (number, key_of(item, config)) if not repeats else (None, None)
                    left_out += key in seen
                    if key not in seen:
                        file.write(record(item, number))
                    seen |= {key} if key[1] else set()
    return left_out


def record(capture: warc.Capture, number: int) -> bytes:
    """A capture as a gzip member, in copies after the first with another id and a page that says so."""
    block, headers = capture.block, dict(capture.headers)
    if number:
        block = block.replace(b"</body>", b"<p>This is copy %d of the page.</p></body>" % number)
        headers["warc-record-id"] = f"<urn:copy:{number}:{capture.record_id}>"
    headers["content-length"] = str(len(block))
    head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    return gzip.compress(head.encode("utf-8", "surrogateescape") + block + b"\r\n\r\n", 1, mtime=0)


def used(root: int, seconds: dict[int, float]) -> None:
    """Note the CPU seconds so far of a process and all below it (Linux), by process id."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS
    for process, (parent, spent) in parents.items():
        above = process
        while above != root and above in parents:
            above = parents[above][0]
        if above == root or (process in seconds and parent):
            seconds[process] = spent


def extract(captures: Path, root: Path, once: bool) -> tuple[stage.Manifest, float]:
    """The step's manifest, and CPU seconds."""
    shutil.rmtree(root, ignore_errors=True)
    recipe = root.with_suffix(".toml")
    recipe.write_text(f'root = "{root}"\n[extract]\ninput = ["{captures}/*.warc.gz"]\n[spark]\nmaster = "local[2]"\n')
    job = [sys.executable, REPOSITORY / "spark_jobs/extract.py", recipe, f"extract.once={str(once).lower()}"]
    process = subprocess.Popen(job, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds: dict[int, float] = {}
    while process.poll() is None:
        used(process.pid, seconds)
        time.sleep(0.2)
    if process.returncode:
        raise UserError(f"{recipe}: the step failed: run {REPOSITORY / 'spark_jobs/extract.py'} on it to see why")
    return stage.need_manifest(str(root), "extract", "extract_once"), sum(seconds.values())


def compare(name: str, captures: Path, out: Path, times: int) -> bool:
    """Print each run and the best; whether all tables are equal."""
    best, hashes = {}, set()
    for number in range(times):
        for once in (False, True) if number % 2 else (True, False):
            manifest, cpu = extract(captures, out / f"{name}-{once}", once)
            hashes.add(tuple(sorted((table, entry.hash) for table, entry in manifest.tables.items())))
            print(f"{name}: once={once}: {manifest.seconds:.1f} s, {cpu:.1f} CPU s, {manifest.details}", flush=True)
            clock, spent = best.get(once, (float("inf"), float("inf")))
            best[once] = min(clock, manifest.seconds), min(spent, cpu)
    (wall, cpu), (wall_off, cpu_off) = best[True], best[False]
    print(f"{name}: once / not: clock {wall / wall_off:.2f}, CPU {cpu / cpu_off:.2f}; hashes equal: {len(hashes) == 1}")
    return len(hashes) == 1


def main(arguments: Sequence[str]) -> None:
    """Compare on the captures and on those without repeats."""
    plain = [text for text in arguments if not text.startswith(("runs=", "copies=", "none="))]
    if not plain:
        raise UserError("usage: python benchmarks/extract_once.py OUT [CAPTURES] [runs=2] [copies=1] [none=1]")
    times = int(next((text[5:] for text in arguments if text.startswith("runs=")), "2"))
    out = Path(plain[0]).resolve()
    copies = int(next((text[7:] for text in arguments if text.startswith("copies=")), "1"))
    captures = Path(plain[1] if len(plain) > 1 else Path(os.environ.get("DATA_DIR", "../shared/data"), "crawl-a"))
    shutil.rmtree(out, ignore_errors=True)
    copied(captures.resolve(), out / "captures", copies, repeats=True)
    equal = [compare("repeats", out / "captures", out, times)]
    if "none=0" not in arguments:
        print(f"repeats taken out: {copied(captures, out / 'without', copies, repeats=False)}")
        equal.append(compare("none", out / "without", out, times))
    sys.exit(not all(equal))


if __name__ == "__main__":
    run(main)
