"""MinHash on one core, from text to signature with word 5-grams: here, by datasketch, and by other packages.

``taskset -c 1 python benchmarks/minhash_speed.py [DOCUMENTS [PYTHON …]]`` prints documents a second of CPU time, and
how far each estimate is from the exact Jaccard. Texts are the books of DATA_DIR cut into documents of 1,500 words,
else words drawn by Zipf's law. Each PYTHON is an interpreter that has some of rensa, gaoya, text-dedup and datatrove
(``python -m venv P && P/bin/pip install rensa gaoya text-dedup``); without any they are left out, saying so. All
take turns, and the best of each counts. Exit status 1 under 8 x datasketch or under 2 x the fastest of the others.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
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
ROUNDS = 5
PEERS = Path(__file__).with_name("peers") / "minhash_peers.py"
DATASKETCH_FLOOR, FLOOR = 8, 2


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


def seconds(function: Callable[[str], object], texts: list[str]) -> float:
    """CPU seconds a document."""
    started = time.process_time()
    for text in texts:
        function(text)
    return (time.process_time() - started) / len(texts)


def of_peers(pythons: list[str], texts: Path) -> dict[str, float]:
    """CPU seconds a document of each package that those interpreters have."""
    found: dict[str, float] = {}
    for python in pythons:
        command = [python, str(PEERS), str(texts), str(PERMUTATIONS)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found |= json.loads(answer.splitlines()[-1])
    return found


def measure(texts: list[str], pythons: list[str]) -> dict[str, float]:
    """The best CPU seconds a document of each, over rounds in which all take their turn."""
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.json")
        path.write_text(json.dumps(texts))
        for _ in range(ROUNDS):
            found = {"millrace": seconds(lambda text: bands(shingles(text), CONFIG), texts)}
            found["millrace, words alone"] = seconds(word_hashes, texts)
            found["datasketch"] = seconds(reference, texts[: max(60, len(texts) // 8)])
            found |= of_peers(pythons, path)
            best = {name: min(value, best.get(name, value)) for name, value in found.items()}
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
    """Print all speeds and what the floors say."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    texts = books(count)
    source = "books of DATA_DIR" if texts else "words drawn by Zipf's law"
    texts = texts or drawn(count)
    best = measure(texts, sys.argv[2:])
    print(
        f"{len(texts)} documents of {WORDS} words ({source}), {PERMUTATIONS} permutations, one core, best of {ROUNDS}"
    )
    for name, value in best.items():
        print(f"  {name:24}{1 / value:10,.0f} documents/s   {value / best['millrace']:7.1f} x the time of millrace")
    print("  error of Jaccard         {:.4f} here, {:.4f} by datasketch".format(*errors(texts)))
    peers = {name: value for name, value in best.items() if not name.startswith(("millrace", "datasketch"))}
    # Shingles that are there already: what is left is not the work from text to signature.
    whole = {name: value for name, value in peers.items() if "given" not in name}
    fastest = min(whole, key=lambda name: whole[name], default=None)
    met = best["datasketch"] / best["millrace"] >= DATASKETCH_FLOOR
    print(f"{'ok    ' if met else 'MISSED'} {best['datasketch'] / best['millrace']:.1f} x datasketch (8)")
    if fastest is None:
        print("no other package was measured: name an interpreter that has rensa or gaoya")
    else:
        ratio = whole[fastest] / best["millrace"]
        met &= ratio >= FLOOR
        print(f"{'ok    ' if ratio >= FLOOR else 'MISSED'} {ratio:.1f} x {fastest} ({FLOOR})")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
