"""Budgets asked for against those given, and the seconds that placing documents costs.

``python -m benchmarks.mixing [DOCUMENTS]`` mixes a made-up corpus of two sources and five languages with Zipf-like
sizes, by the functions that the step `publish` calls, in this process: no engine, no files. It prints each group's
tokens there, asked for and given, the largest error against what could be given, and documents a second and core.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from itertools import accumulate

from dataeng.document import Document, digest, to_batch, to_row
from dataeng.publish import Config
from dataeng.publish.groups import targets
from dataeng.publish.mixture import BUCKETS, Quota, copies_and_rest, measure, place_all

SHARES = {"web/en": 70, "web/de": 15, "web/sw": 1, "books/en": 12, "books/de": 2}
SETTINGS = {"by": ["source", "language"], "weights": {"web/*": 0.7, "books/*": 0.3}, "validation": 0, "test": 0}


def corpus(documents: int) -> list[dict]:
    chance = random.Random(0)
    names = chance.choices(list(SHARES), list(SHARES.values()), k=documents)
    rows = []
    for number, name in enumerate(names):
        source, language = name.split("/")
        text = f"{number} " + "word " * int(chance.lognormvariate(5, 1))
        rows.append(to_row(Document(digest(str(number)), text, source=source, language=language)))
    return rows


def main(documents: int) -> None:
    config = Config(**SETTINGS, language_alpha=0.3, maximum_repetitions=4)
    rows = corpus(documents)
    batches = [to_batch(rows[at : at + 256]) for at in range(0, documents, 256)]
    begun = time.process_time()
    measured = [row for batch in measure(batches, config, 0) for row in batch.to_pylist()]
    sums: dict[str, Counter[int]] = {name: Counter() for name in SHARES}
    for row in measured:
        sums[row["group"]][row["bucket"]] += row["units"]
    available = {name: sum(found.values()) for name, found in sums.items() if found}
    found, quotas = targets(available, config), {}
    for name, target in found.items():
        copies, rest = copies_and_rest(target.wanted, available[name])
        running = list(accumulate(sums[name][bucket] for bucket in range(BUCKETS)))
        quotas[name] = Quota(copies, sum(units <= rest for units in running) if rest else 0)
    given = Counter[str]()
    for batch in place_all(batches, config, 0, quotas):
        for row in batch.to_pylist():
            if row["table"] != "dropped":
                copies = int(dict(row["metadata"]).get("repeat", 1))
                given[f"{row['source']}/{row['language']}"] += copies * len(row["text"].encode())
    seconds, per = time.process_time() - begun, config.per_token()
    print(f"{'group':<10}{'there':>14}{'asked':>14}{'given':>14}{'times':>8}  tokens")
    for name, target in sorted(found.items()):
        numbers = (available[name], target.asked, given[name])
        print(f"{name:<10}" + "".join(f"{n / per:>14,.0f}" for n in numbers) + f"{given[name] / available[name]:>8.2f}")
    error = max(1 - given[name] / target.wanted for name, target in found.items())
    over = any(given[name] > target.wanted + 1e-6 * available[name] for name, target in found.items())
    print(f"given less than could be: {error:.4%} at most; more: {'yes' if over else 'never'}")
    print(f"{documents / seconds:,.0f} documents a second and core, both passes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
