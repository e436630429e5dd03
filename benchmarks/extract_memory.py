"""Memory and time of a long capture: pages of repeated captures through ``extract_file``, sampled over time.

python benchmarks/extract_memory.py [PAGES] [FOLDER]

The captures of FOLDER (default $DATA_DIR/crawl-a) are repeated into one file until it holds PAGES (default 3,000)
captures. Results of equal pages are not remembered here, so that every page is worked on. Prints the resident
memory of reader and worker at each tenth, and the time per page in the first and the last quarter.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from dataeng import warc
from dataeng.extract import Config, captures
from dataeng.extract.limits import kept


def repeated(folder: str, pages: int, target: Path) -> int:
    """Write one file of at least so many captures; gives how many."""
    sources = sorted(Path(folder).glob("*.warc.gz"))
    held = [sum(isinstance(item, warc.Capture) for item in warc.read(str(path))) for path in sources]
    count = number = 0
    with target.open("wb") as out:
        while count < pages:
            out.write(sources[number % len(sources)].read_bytes())
            count += held[number % len(sources)]
            number += 1
    return count


def resident(pid: int) -> float:
    """A process's resident memory in MB (Linux)."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def forget() -> None:
    """Have no result remembered."""
    captures._memory.pages.clear()
    captures._memory.size = 0


def main() -> None:
    """Stream the file and print what was seen."""
    pages = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    folder = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("DATA_DIR", "../shared/data") + "/crawl-a"
    config = Config.model_validate({"input": [folder]})
    worker = kept("dataeng.extract.page:work", config.cpu_seconds, config.memory_bytes)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "long.warc.gz"
        count = repeated(folder, pages, path)
        print(f"{count:,} captures, {path.stat().st_size / 1e6:,.0f} MB compressed")
        times = [time.perf_counter()]
        for number, _row in enumerate(captures.extract_file(str(path), path.name, config, worker), 1):
            forget()
            times.append(time.perf_counter())
            if number % (count // 10) == 0:
                other = resident(worker._process.pid) if worker._process else 0.0
                print(f"{number:8,} rows  reader {resident(os.getpid()):6.0f} MB  worker {other:6.0f} MB", flush=True)
    quarter = len(times) // 4
    first, last = (times[quarter] - times[0]) / quarter, (times[-1] - times[-1 - quarter]) / quarter
    print(f"per row: first quarter {first * 1e3:.2f} ms, last quarter {last * 1e3:.2f} ms ({last / first:.2f} ×)")
    worker.stop()


if __name__ == "__main__":
    main()
