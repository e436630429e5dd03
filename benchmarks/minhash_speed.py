"""MinHash on one core: shingles and signatures here against datasketch, on the same documents in one run.

``python benchmarks/minhash_speed.py [DOCUMENTS]`` prints documents a second, and how far each is from the
exact Jaccard. Texts are the books of DATA_DIR cut into documents of 1,500 words, else words drawn by Zipf's law.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasketch import MinHash

from dataeng.dedup import Config
from dataeng.dedup.hashing import jaccard_from
from dataeng.dedup.minhash import bands, shingles, signature
from dataeng.dedup.normalise import word_hashes

WORDS = 1500
CONFIG = Config()
PERMUTATIONS = CONFIG.bands * CONFIG.rows


def books(count: int) -> list[str]:
    """Documents of 1,500 words out of the development data's books; none where they are absent."""
    path = Path(os.environ.get("DATA_DIR", "../shared/data"), "books", "books.jsonl.gz")
    found: list[str] = []
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                words = json.loads(line)["text"].split(" ")
                found += [" ".join(words[k : k + WORDS]) for k in range(0, len(words) - WORDS, WORDS)]
                if len(found) >= count:
                    break
    return found[:count]


def drawn(count: int) -> list[str]:
    """As many documents of words that are drawn by Zipf's law."""
    generator = np.random.default_rng(0)
    letters = generator.integers(97, 123, (20_000, 8), dtype=np.uint8)
    words = [bytes(row[: 2 + k % 7]).decode() for k, row in enumerate(letters)]
    return [" ".join(words[k] for k in generator.zipf(1.3, WORDS) % 20_000) for _ in range(count)]


def reference(text: str) -> MinHash:
    """The signature as a user of datasketch makes it: words joined to shingles, hashed one by one."""
    words = text.lower().split()
    grams = {" ".join(words[k : k + 5]).encode() for k in range(len(words) - 4)}
    sketch = MinHash(PERMUTATIONS, seed=1)
    sketch.update_batch(list(grams))
    return sketch


def speed(function: Callable[[str], object], texts: list[str], rounds: int = 3) -> float:
    """Documents a second of CPU time, the best of some rounds."""
    best = 0.0
    for _ in range(rounds):
        started = time.process_time()
        for text in texts:
            function(text)
        best = max(best, len(texts) / (time.process_time() - started))
    return best


def errors(texts: list[str]) -> tuple[float, float]:
    """Root mean square errors of both estimates, on pairs with a tenth of their words exchanged."""
    ours, theirs = [], []
    for text, filler in zip(texts[:50], texts[50:100], strict=True):
        words, others = text.split(" "), filler.split(" ")
        place = len(words) // 3
        other = " ".join(words[:place] + others[:150] + words[place + 150 :])
        true = jaccard_from(shingles(text), shingles(other), 0.0)
        one, two = (signature(shingles(t), 1, PERMUTATIONS) for t in (text, other))
        ours.append(float((one == two).mean()) - true)
        theirs.append(reference(text).jaccard(reference(other)) - true)
    return float(np.sqrt(np.mean(np.square(ours)))), float(np.sqrt(np.mean(np.square(theirs))))


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    texts = books(count)
    source = "books of DATA_DIR" if texts else "words drawn by Zipf's law"
    texts = texts or drawn(count)
    ours = speed(lambda text: bands(shingles(text), CONFIG), texts)
    words = speed(word_hashes, texts)
    theirs = speed(reference, texts[: max(100, count // 8)], 1)
    mine, other = errors(texts)
    print(f"{len(texts)} documents of {WORDS} words ({source}), {PERMUTATIONS} permutations, one core")
    print(f"  millrace    {ours:8,.0f} documents/s   (words alone {words:,.0f}/s)   error of Jaccard {mine:.4f}")
    print(f"  datasketch  {theirs:8,.0f} documents/s   {'':24}   error of Jaccard {other:.4f}")
    print(f"  ratio       {ours / theirs:8.1f}")


if __name__ == "__main__":
    main()
