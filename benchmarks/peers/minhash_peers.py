"""The MinHash of other packages, from text to signature with word 5-grams: run by ``benchmarks/minhash_speed.py``.

``PYTHON minhash_peers.py TEXTS PERMUTATIONS`` runs those that PYTHON has over the texts (a JSON list) and prints, as
JSON, the CPU seconds of each. Written against rensa 0.5, gaoya 0.2, text-dedup 0.4 and datatrove 0.10.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
ROWS = 8
Method = Callable[[list[str]], object]


def grams(text: str) -> list[str]:
    """Word 5-grams, by the fastest way that Python has."""
    words = text.lower().split()
    return list(map(" ".join, zip(words, words[1:], words[2:], words[3:], words[4:], strict=False)))


def rensa(count: int) -> Iterator[tuple[str, Method]]:
    """Its Rust core takes shingles that Python has made; whichever of its ways is the faster, and that core alone."""
    import rensa

    def one_by_one(texts: list[str]) -> None:
        for text in texts:
            sketch = rensa.RMinHash(count, 1)
            sketch.update(grams(text))
            sketch.digest()

    def matrix(texts: list[str]) -> object:
        return rensa.RMinHash.digest_matrix_from_token_sets([grams(text) for text in texts], count, 1)

    ready: dict[int, list[list[str]]] = {}

    def core(texts: list[str]) -> object:
        return rensa.RMinHash.digest_matrix_from_token_sets(ready[id(texts)], count, 1)

    def prepare(texts: list[str]) -> None:
        ready[id(texts)] = [grams(text) for text in texts]

    core.prepare = prepare  # type: ignore[attr-defined]
    yield "rensa, one by one", one_by_one
    yield "rensa, all at once", matrix
    yield "rensa, shingles given", core


def gaoya(count: int) -> Iterator[tuple[str, Method]]:
    """Rust from the text on; it puts the signature into its index at once."""
    from gaoya.minhash import MinHashStringIndex

    def index(texts: list[str]) -> None:
        found = MinHashStringIndex(32, 0.8, count // ROWS, ROWS, None, "word", True, (5, 5))
        for number, text in enumerate(texts):
            found.insert_document(number, text)

    yield "gaoya", index


def text_dedup(count: int) -> Iterator[tuple[str, Method]]:
    """NumPy over hashes of joined n-grams."""
    import numpy as np
    from text_dedup.minhash import embed_func, xxh3_32hash

    prime, most = np.uint64((1 << 61) - 1), np.uint64((1 << 32) - 1)
    random = np.random.RandomState(1)
    pair = tuple(random.randint(low, prime, dtype=np.uint64, size=(count,)) for low in (1, 0))
    more = {"num_perm": count, "ngram_size": 5, "min_length": 5, "permutations": pair, "hash_func": xxh3_32hash}
    more |= {"hashranges": [(k, k + ROWS) for k in range(0, count, ROWS)], "dtype": np.uint64}
    more |= {"max_hash": most, "modulo_prime": prime}

    def embed(texts: list[str]) -> None:
        for text in texts:
            embed_func(text, 0, **more)

    yield "text-dedup", embed


def datatrove(count: int) -> Iterator[tuple[str, Method]]:
    """NumPy over hashes of joined n-grams of its word tokeniser."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    step = MinhashDedupSignature("/tmp", MinhashConfig(num_buckets=count // ROWS, hashes_per_bucket=ROWS))

    def sign(texts: list[str]) -> None:
        for text in texts:
            step.get_signature(step.get_shingles(text))

    yield "datatrove", sign


def main() -> None:
    texts, count = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    seconds: dict[str, float] = {}
    for peer in (rensa, gaoya, text_dedup, datatrove):
        try:
            for name, method in peer(count):
                part = texts if name.startswith(("rensa", "gaoya")) else texts[:60]
                getattr(method, "prepare", method)(part)
                started = time.process_time()
                method(part)
                seconds[name] = (time.process_time() - started) / len(part)
        except ImportError:
            continue
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
