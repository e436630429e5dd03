"""News articles with known near-duplicates: all of them found, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataeng.dedup import Config
from dataeng.dedup.hashing import jaccard_from
from dataeng.dedup.minhash import bands, shingles


@pytest.mark.parametrize("size", [100, 1000, 2500])
def test_pairs_are_those_of_the_truth(data_dir: Path, size: int) -> None:
    """2,500 articles share no band by chance at all: candidates, too, are the true pairs."""
    folder, config = data_dir / "neardup" / "mccormick", Config()
    lines = (folder / f"articles_{size}.train").read_text(encoding="utf-8", errors="replace").splitlines()
    texts = dict(line.split(" ", 1) for line in lines)
    truth = {tuple(sorted(line.split())) for line in (folder / f"articles_{size}.truth").read_text().splitlines()}
    sets = {name: shingles(text) for name, text in texts.items()}
    band_members: dict[tuple[int, int], list[str]] = {}
    for name, values in sets.items():
        for place, value in enumerate(bands(values, config).tolist()):
            band_members.setdefault((place, value), []).append(name)
    candidates = {tuple(sorted((a, b))) for group in band_members.values() for a in group for b in group if a != b}
    found = {pair for pair in candidates if jaccard_from(sets[pair[0]], sets[pair[1]], config.threshold)}
    assert found == truth
    assert len(candidates) <= 1.1 * len(truth)
