"""A crawl through datatrove's reader, Trafilatura and quality filters. Run by an interpreter that has datatrove.

python datatrove_crawl.py CAPTURES OUT WORKERS: prints JSON with seconds, and the documents read and kept.
"""

import json
import sys
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


def main() -> None:
    captures, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    steps = [
        WarcReader(captures, glob_pattern="*.warc.gz", default_metadata={}),
        Trafilatura(),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(),
        FineWebQualityFilter(),
        JsonlWriter(f"{out}/kept"),
    ]
    executor = LocalPipelineExecutor(steps, tasks=8, workers=workers, logging_dir=f"{out}/logs", skip_completed=False)
    begun = time.monotonic()
    stats = executor.run()
    seconds = time.monotonic() - begun
    counts = {step.name: {key: value.total for key, value in step.stats.items()} for step in stats.stats}
    print(json.dumps({"seconds": seconds, "counts": counts}, default=str))


if __name__ == "__main__":
    main()
