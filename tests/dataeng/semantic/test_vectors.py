"""Vectors whose cosines are exact, k-means, and who goes for whom: against plain reference code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.semantic import Config, hashed
from dataeng.semantic.vectors import LARGEST, cosines, kmeans, matches, nearest, quantised


def drawn(seed, count, dimensions=64, groups=6, noise=0.3):
    """Vectors around some directions."""
    draw = np.random.default_rng(seed)
    middles = draw.normal(size=(groups, dimensions))
    return np.stack(
        [quantised(middles[n % groups] + noise * draw.normal(size=dimensions)) for n in draw.permutation(count)]
    )


def plain_matches(vectors, threshold):
    """The rule, one pair at a time."""
    found, stays = [], []
    for n in range(len(vectors)):
        above = [(float(cosines(vectors[n : n + 1], vectors[m : m + 1])[0, 0]), -m) for m in stays]
        best = max((pair for pair in above if pair[0] >= threshold), default=None)
        found.append((-1, 0.0) if best is None else (-best[1], best[0]))
        stays += [n] if best is None else []
    return found


def test_a_vector_without_direction_is_none_and_others_keep_theirs():
    assert quantised(np.zeros(64)) is None
    assert quantised(np.array([np.nan, 1.0])) is None
    real = np.random.default_rng(0).normal(size=(2, 256))
    true = real[0] @ real[1] / np.linalg.norm(real[0]) / np.linalg.norm(real[1])
    small = np.stack([quantised(row) for row in real])
    assert np.abs(small).max() == LARGEST
    assert cosines(small[:1], small[1:])[0, 0] == pytest.approx(true, abs=1e-3)
    assert cosines(small, small).diagonal().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dimensions", [64, 1024, 1536])
def test_cosines_do_not_follow_the_batch(dimensions):
    vectors = drawn(1, 70, dimensions)
    vectors[:2] = LARGEST  # the largest sums there are
    whole = cosines(vectors, vectors)
    alone = np.concatenate([cosines(vectors[n : n + 1], vectors) for n in range(len(vectors))])
    assert (whole == alone).all()
    assert (whole == whole.T).all()


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 300), st.sampled_from([0.6, 0.9, 0.97, 1.0]))
def test_matches_are_those_of_the_plain_rule(seed, count, threshold):
    vectors = drawn(seed, count, 64, groups=1 + seed % 40, noise=0.05 * (seed % 8))
    matched, similarity = matches(vectors, threshold)
    if count <= 60:
        assert list(zip(matched.tolist(), similarity.tolist(), strict=True)) == plain_matches(vectors, threshold)
    gone = matched >= 0
    assert (matched[matched[gone]] == -1).all(), "none goes for one that goes"
    assert (similarity[gone] >= threshold).all()
    stays = vectors[~gone]
    assert (np.triu(cosines(stays, stays), 1) < threshold).all(), "no two that stay are alike"


def test_more_than_a_tile_of_equal_vectors_leaves_the_first():
    vectors = np.repeat(drawn(2, 1), 700, axis=0)
    matched, similarity = matches(vectors, 1.0)
    assert matched.tolist() == [-1] + [0] * 699
    assert similarity[1:].tolist() == [1.0] * 699


def test_kmeans_finds_planted_directions_and_is_the_same_again():
    vectors = drawn(3, 600, groups=6, noise=0.2)
    centres = kmeans(vectors, 6, 20, seed=1)
    clusters, closeness = nearest(vectors, centres)
    assert closeness.min() > 0.8
    alike = cosines(vectors, vectors) > 0.8
    assert (alike == (clusters[:, None] == clusters[None, :])).all()
    assert (kmeans(vectors, 6, 20, seed=1) == centres).all()
    assert (nearest(vectors[::-1], centres)[0][::-1] == clusters).all()


def test_kmeans_takes_no_more_centres_than_there_are_directions():
    vectors = np.repeat(drawn(4, 3, groups=3), 10, axis=0)
    assert len(kmeans(vectors, 8, 5, seed=0)) == 3


WORDS = [f"{n:b}".translate({48: "a", 49: "b"}) for n in range(3000)]  # every digit counts as a 0


def texts_of(seed):
    draw = np.random.default_rng(seed)
    ranks = np.minimum(draw.zipf(1.3, size=(40, 300)), 3000) - 1
    return [" ".join(WORDS[n] for n in row) for row in ranks]


def embedded(texts, dimensions=256):
    counts = np.zeros(hashed.BUCKETS, np.int64)
    for text in texts:
        counts[hashed.buckets(text)] += 1
    weights = hashed.rarity(counts, len(texts))
    return np.stack([hashed.embed(text, weights, dimensions, 1) for text in texts]), weights


def test_hashed_cosines_are_those_of_tf_idf():
    texts = texts_of(5)
    vectors, weights = embedded(texts, 1024)
    counted = [{word: text.split().count(word) for word in set(text.split())} for text in texts]
    rarity = {word: float(weights[hashed.buckets(word)[0]]) for one in counted for word in one}
    tf_idf = np.array([[(1 + np.log(c[w])) * rarity[w] if w in c else 0 for w in rarity] for c in counted])
    tf_idf /= np.linalg.norm(tf_idf, axis=1, keepdims=True)
    errors = cosines(vectors, vectors) - tf_idf @ tf_idf.T
    assert np.abs(errors).max() < 5 / np.sqrt(1024)
    assert np.sqrt((errors**2).mean()) < 1.2 / np.sqrt(1024)


def test_reordered_and_cut_texts_are_near_and_others_far():
    texts = texts_of(6)
    words = texts[0].split()
    texts += [" ".join(words[150:] + words[:150]), " ".join(words[:270])]
    found = cosines(*(embedded(texts)[0],) * 2)
    assert found[0, 40] > 0.99  # words alone: order does not count
    assert found[0, 41] > 0.9
    assert np.triu(found[:40, :40], 1).max() < 0.8


def test_a_text_without_words_has_no_vector():
    assert hashed.embed(" — … ", np.ones(hashed.BUCKETS, np.float32), 64, 2) is None


def test_clusters_by_documents():
    config = Config()
    assert [config.clusters_for(n) for n in (0, 1, 1000, 1001, 1_000_000, 100_000_000)] == [1, 1, 1, 2, 1000, 10_000]
    assert Config(clusters=50).clusters_for(20) == 20
    assert (config.sample_for(3), config.sample_for(10_000)) == (20_000, 400_000)
