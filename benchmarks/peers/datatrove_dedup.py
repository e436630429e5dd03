"""datatrove's four MinHash stages, JSONL to kept JSONL. Run by an interpreter that has datatrove[io,processing].

python datatrove_dedup.py DOCUMENTS OUT WORKERS: prints JSON with the seconds of each stage and the documents kept.
DOCUMENTS holds JSONL files with ``id`` and ``text``. 5-word shingles, 14 bands of 8 rows, 64-bit hashes.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

CONFIG = MinhashConfig(
    n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64, hash_fc="xxhash")
)


def main() -> None:
    documents, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    files = len(list(Path(documents).glob("*.jsonl")))
    signatures, buckets, removed = (f"{out}/{name}" for name in ("signatures", "buckets", "removed"))
    reader = JsonlReader(documents, glob_pattern="*.jsonl")
    stages = {
        "signature": ([reader, MinhashDedupSignature(signatures, config=CONFIG)], files),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=CONFIG)], CONFIG.num_buckets),
        "cluster": ([MinhashDedupCluster(buckets, removed, config=CONFIG)], 1),
        "filter": ([reader, MinhashDedupFilter(removed), JsonlWriter(f"{out}/kept", compression=None)], files),
    }
    seconds, last = {}, None
    for name, (steps, tasks) in stages.items():
        executor = LocalPipelineExecutor(
            steps, tasks=tasks, workers=min(workers, tasks), logging_dir=f"{out}/logs/{name}", skip_completed=False
        )
        begun = time.monotonic()
        last = executor.run()
        seconds[name] = round(time.monotonic() - begun, 3)
    kept = sum(len(path.read_bytes().splitlines()) for path in Path(out, "kept").glob("*.jsonl"))
    print(json.dumps({"seconds": seconds, "kept": kept, "statistics": last is not None}))


if __name__ == "__main__":
    main()
