"""Signatures: Jaccard estimated as well as the reference does, matches at the promised rate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from datasketch import MinHash

from dataeng.dedup import Config
from dataeng.dedup.hashing import hash_shingles, jaccard_from
from dataeng.dedup.minhash import bands, permutations, shingles, signature
from dataeng.dedup.normalise import word_hashes

WORDS = [f"w{chr(97 + k % 26)}{chr(97 + k // 26 % 26)}{chr(97 + k // 676)}" for k in range(5000)]


def text_of(generator: np.random.Generator, words: int) -> list[str]:
    return [WORDS[k] for k in generator.integers(0, len(WORDS), words)]


def edited(generator: np.random.Generator, words: list[str], edits: int) -> list[str]:
    other = list(words)
    for place in generator.integers(0, len(words), edits):
        other[place] = WORDS[generator.integers(0, len(WORDS))]
    return other


def plain_jaccard(one: list[str], other: list[str], n: int = 5) -> float:
    a = {tuple(one[k : k + n]) for k in range(len(one) - n + 1)}
    b = {tuple(other[k : k + n]) for k in range(len(other) - n + 1)}
    return len(a & b) / len(a | b)


def test_jaccard_of_hashed_shingles_is_that_of_the_shingles() -> None:
    generator = np.random.default_rng(1)
    for edits in (0, 1, 5, 20, 80):
        one = text_of(generator, 300)
        other = edited(generator, one, edits)
        found = jaccard_from(shingles(" ".join(one)), shingles(" ".join(other)), 0.0)
        assert found == pytest.approx(plain_jaccard(one, other), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_jaccard_gives_up_only_below_the_threshold(threshold: float) -> None:
    generator = np.random.default_rng(2)
    for _ in range(300):
        pool = np.sort(generator.choice(60, 40, replace=False)).astype(np.uint64)
        one, other = (np.sort(generator.choice(pool, generator.integers(1, 40), replace=False)) for _ in range(2))
        true = len(set(one.tolist()) & set(other.tolist())) / len(set(one.tolist()) | set(other.tolist()))
        assert jaccard_from(one, other, threshold) == (true if true >= threshold else 0.0)


def test_shingles_need_their_words_in_order() -> None:
    assert shingles("one two three four").size == 0
    assert shingles("one two three four five").size == 1
    assert shingles("one two three four five").tolist() != shingles("five four three two one").tolist()
    assert shingles("a " * 100).size == 1


def test_rolling_hash_does_not_depend_on_what_came_before() -> None:
    words = word_hashes(" ".join(WORDS[:50]))
    rolled = hash_shingles(words, 5)
    assert [hash_shingles(words[k : k + 5].copy(), 5)[0] for k in range(46)] == rolled.tolist()


def test_permutations_follow_from_the_seed_alone() -> None:
    a, b = permutations(1, 112)
    assert (a % 2 == 1).all()
    assert len(set(a.tolist())) == len(set(b.tolist())) == 112
    assert permutations(2, 112)[0].tolist() != a.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 112])
@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_minima_are_those_of_each_permutation(count: int, size: int) -> None:
    values = np.random.default_rng(6).integers(0, 2**64, size, dtype=np.uint64)
    a, b = permutations(3, count)
    plain = [
        min(((int(f) * int(x) + int(s)) % 2**64 for x in values), default=2**64 - 1) for f, s in zip(a, b, strict=True)
    ]
    assert signature(values, 3, count).tolist() == plain


def test_signatures_have_not_changed() -> None:
    """Signatures are kept and compared across runs: another value here needs another normalise.VERSION."""
    values = shingles("The quick brown fox jumps over the lazy dog, 42 times; das ist ein Größtes 日本")
    found = bands(values, Config())
    assert [int(value) for value in found[:2]] == GOLDEN


@pytest.mark.parametrize(("first", "letters"), [(0x4E00, 2000), (0x3041, 80), (0x0E01, 46), (0x1780, 33), (0x1000, 32)])
def test_texts_without_spaces_have_shingles(first: int, letters: int) -> None:
    """Chinese, Japanese, Thai, Khmer, Burmese: one word by white space, yet near-duplicates like any other text."""
    generator = np.random.default_rng(8)
    one = "".join(chr(first + k) for k in generator.integers(0, letters, 300))
    other = one[:150] + chr(first) + one[151:]
    assert len(one.split()) == 1
    assert shingles(one).size > 290 >= Config().minimum_shingles
    assert 0.95 < jaccard_from(shingles(one), shingles(other), 0.8) < 1
    assert jaccard_from(shingles(one), shingles(one[::-1]), 0.0) < 0.1
    assert (bands(shingles(one), Config()) == bands(shingles(other), Config())).any()


def test_short_hashes_are_the_upper_halves_of_long_ones() -> None:
    """So a band that is shared is shared at either width, and what is shared by chance alone is verified away."""
    values = np.arange(1, 100, dtype=np.uint64)
    found = bands(values, Config(hash_bits=32))
    assert found.tolist() == (bands(values, Config()) >> np.uint64(32)).tolist()
    assert Config(hash_bits=32).parameters() != Config().parameters()


GOLDEN = [8962390745999799484, 12986736447093432531]


def test_estimates_agree_with_datasketch() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = [], []
    for edits in (2, 4, 8, 16, 32) * 8:
        one = text_of(generator, 300)
        pair = [" ".join(one), " ".join(edited(generator, one, edits))]
        sets = [shingles(text) for text in pair]
        true = jaccard_from(sets[0], sets[1], 0.0)
        a, b = (signature(values, 7, 256) for values in sets)
        ours.append(float((a == b).mean()) - true)
        sketches = [MinHash(256, seed=7) for _ in sets]
        for sketch, values in zip(sketches, sets, strict=True):
            sketch.update_batch([int(value).to_bytes(8, "little") for value in values])
        theirs.append(sketches[0].jaccard(sketches[1]) - true)
    error = math.sqrt(np.mean(np.square(ours)))
    assert error < 1.3 * math.sqrt(np.mean(np.square(theirs)))
    assert abs(np.mean(ours)) < 3 * error / math.sqrt(len(ours))


@pytest.mark.parametrize("jaccard", [0.6, 0.7, 0.75, 0.8, 0.85])
def test_match_rate_is_that_of_the_formula(jaccard: float) -> None:
    config, generator, trials, size = Config(), np.random.default_rng(4), 2000, 400
    common = round(size * jaccard)
    half = common + (size - common) // 2
    hits = 0
    for _ in range(trials):
        pool = generator.integers(0, 2**64, size, dtype=np.uint64)
        one, other = pool[:half].copy(), np.concatenate([pool[:common], pool[half:]])
        hits += bool((bands(one, config) == bands(other, config)).any())
    expected = 1 - (1 - (common / size) ** 8) ** 14
    assert abs(hits / trials - expected) < 3 * math.sqrt(expected * (1 - expected) / trials)


def test_match_rate_does_not_hang_on_one_draw_of_permutations() -> None:
    """One pair, many seeds: were the permutations alike, a pair would match always or never."""
    generator = np.random.default_rng(5)
    pool = generator.integers(0, 2**64, 1000, dtype=np.uint64)
    one, other = pool[:875].copy(), np.concatenate([pool[:750], pool[875:]])
    expected = 1 - (1 - 0.75**8) ** 14
    hits = [bool((bands(one, c) == bands(other, c)).any()) for c in (Config(hash_seed=seed) for seed in range(800))]
    assert abs(np.mean(hits) - expected) < 3 * math.sqrt(expected * (1 - expected) / len(hits))


def test_bands_of_different_places_do_not_meet() -> None:
    found = bands(np.arange(1, 100, dtype=np.uint64), Config(bands=50, rows=1))
    assert len(set(found.tolist())) == 50
    assert all(a != b for a, b in itertools.pairwise(found.tolist()))
