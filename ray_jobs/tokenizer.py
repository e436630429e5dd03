"""Step `tokenizer`: a byte-level BPE from what was published. One process does it; no cluster is started."""

from __future__ import annotations

from dataeng.tokens import tokenizer
from ray_jobs.cluster import job

if __name__ == "__main__":
    job(tokenizer.make)
