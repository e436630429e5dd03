"""A crawl through extract and filter on two workers, against datatrove on the same captures.

    python benchmarks/crawl_speed.py PEER OUT [CAPTURES] [runs=2]

PEER is a Python interpreter with datatrove[io,processing] and warcio (an environment of its own: it pins another
trafilatura). CAPTURES is a folder of .warc.gz files (default: DATA_DIR/crawl-a). Both sides read, extract the main
text and run Gopher's repetition and quality rules, C4's and FineWeb's, with two workers, start-up included; they
take turns. Damaged files are left out for both: datatrove fails at the first. Prints seconds of each run and the
ratio of the fastest ones. Floor: at most 0.60.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from dataeng import stage
from dataeng.cli import UserError, run

REPOSITORY = Path(__file__).resolve().parent.parent
WORKERS, FLOOR = 2, 0.60
RECIPE = """
seed = 0

[extract]
input = ["{captures}/*.warc.gz"]

[filter]
rules = ["gopher", "c4", "fineweb"]

[spark]
master = "local[{workers}]"
"""


def sound(captures: Path, folder: Path) -> Path:
    """A folder of links to those captures that can be read to their end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(captures.glob("*.warc.gz")):
        try:
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error) as error:
            print(f"left out: {path.name}: {error}")
        else:
            (folder / path.name).symlink_to(path)
    return folder


def ours(captures: Path, out: Path) -> tuple[float, dict[str, int]]:
    """Seconds, and the documents in and kept."""
    root = out / "millrace"
    shutil.rmtree(root, ignore_errors=True)
    recipe = out / "crawl_speed.toml"
    recipe.write_text(f'root = "{root}"\n' + RECIPE.format(captures=captures, workers=WORKERS))
    begun = time.monotonic()
    subprocess.run([sys.executable, REPOSITORY / "spark_jobs/pipeline.py", recipe], check=True)
    seconds = time.monotonic() - begun
    counts = {name: stage.need_manifest(str(root), name, "crawl_speed").counts for name in ("extract", "filter")}
    return seconds, {"in": counts["extract"]["in"], "kept": counts["filter"]["kept"]}


def peers(interpreter: str, captures: Path, out: Path) -> tuple[float, dict[str, int]]:
    """Seconds, and the documents in and kept."""
    folder = out / "datatrove"
    shutil.rmtree(folder, ignore_errors=True)
    script = REPOSITORY / "benchmarks/peers/datatrove_crawl.py"
    done = subprocess.run(
        [interpreter, script, captures, folder, str(WORKERS)], check=True, stdout=subprocess.PIPE, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    counts = list(found["counts"].values())
    return found["seconds"], {"in": counts[0].get("documents", 0), "kept": counts[-1].get("total", 0)}


def main(arguments: Sequence[str]) -> None:
    """Alternate both sides and print the ratio."""
    plain = [text for text in arguments if not text.startswith("runs=")]
    if len(plain) < 2:
        raise UserError("usage: python benchmarks/crawl_speed.py PEER OUT [CAPTURES] [runs=2]")
    times = int(next((text[5:] for text in arguments if text.startswith("runs=")), "2"))
    interpreter, out = plain[0], Path(plain[1]).resolve()
    captures = Path(plain[2] if len(plain) > 2 else Path(os.environ.get("DATA_DIR", "../shared/data"), "crawl-a"))
    if subprocess.run([interpreter, "-c", "import datatrove, warcio"], capture_output=True).returncode:
        raise UserError(
            f"{interpreter}: has no datatrove with warcio: install datatrove[io,processing] and warcio there"
        )
    out.mkdir(parents=True, exist_ok=True)
    files = sound(captures.resolve(), out / "captures")
    best = {"millrace": float("inf"), "datatrove": float("inf")}
    for number in range(times):
        for name, found in (
            ("millrace", ours(files, out)),
            ("datatrove", peers(interpreter, files, out)),
        ):
            print(f"run {number + 1}: {name:10s} {found[0]:7.1f} s  {found[1]}", flush=True)
            best[name] = min(best[name], found[0])
    ratio = best["millrace"] / best["datatrove"]
    print(f"{'ok  ' if ratio <= FLOOR else 'MISS'} millrace / datatrove: {ratio:.2f} (floor {FLOOR:.2f})")
    sys.exit(ratio > FLOOR)


if __name__ == "__main__":
    run(main)
