"""The linear classifier: its features, its file, and that what it remembers changes nothing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng import train_linear
from dataeng.cli import UserError
from dataeng.document import Document
from dataeng.filter import classifier, linear, toxicity

BITS = 12
WORDS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8)


def model(seed=0, power=0.25):
    weights = np.random.default_rng(seed).integers(-127, 128, 1 << BITS).astype(np.int8)
    return linear.Linear(weights, 0.01, -0.2, power, ("ok", "toxic"))


@given(st.lists(WORDS, min_size=1, max_size=12), st.sampled_from([0.0, 0.25, 1.0]))
@settings(deadline=None)
def test_the_log_odds_are_the_sum_over_the_features_that_training_counts(words, power):
    made, line = model(power=power), " ".join(words)
    counts = train_linear.features([line], BITS).toarray()[0]
    expected = 0.01 * float(counts @ made.weights) / counts.sum() ** power - 0.2
    assert made.log_odds(line) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert made.probability(line, "toxic") == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-9)
    assert made.probability(line, "toxic") + made.probability(line, "ok") == pytest.approx(1)


def test_every_n_gram_of_a_word_counts_once():
    grams = ["<ab", "ab>", "<ab>"]
    assert len(linear.word_features("ab", BITS)) == len(grams) + 1
    assert len(linear.word_features("aaaaaaaa", 20)) < len(linear.word_features("abcdefgh", 20))
    assert linear.word_features("a", BITS).max() < 1 << BITS


def test_what_was_seen_before_changes_no_score():
    fresh, used = model(), model()
    for number in range(500):
        used.log_odds(f"word{number} again")
    assert used.log_odds("some other line again") == fresh.log_odds("some other line again")


def test_a_file_gives_the_model_back_and_is_always_the_same(tmp_path):
    data = model().to_bytes()
    assert data == model().to_bytes()
    path = tmp_path / "model.npz"
    path.write_bytes(data)
    again = classifier.model_with(str(path), "toxic")
    assert again.to_bytes() == data
    assert classifier.probability("a line of words", "toxic", again) == model().probability("a line of words", "toxic")
    assert classifier.probability("", "toxic", again) == 0.0
    with pytest.raises(UserError, match="knows no label 'bad'; its labels: ok, toxic"):
        classifier.model_with(str(path), "bad")


def test_a_users_linear_model_serves_the_rule(tmp_path):
    (tmp_path / "mine.npz").write_bytes(model().to_bytes())
    config = toxicity.Config(model=str(tmp_path / "mine.npz"), label="ok", languages=[])
    found = toxicity.scores(Document("x", "some words", language="de"), config)
    assert found == {"toxicity": pytest.approx(model().probability("some words", "ok"))}


@pytest.mark.parametrize("cut", [0, 10, 500, -10])
def test_files_that_are_none_are_named(tmp_path, cut):
    path = tmp_path / "bad.npz"
    path.write_bytes(model().to_bytes()[:cut])
    with pytest.raises(UserError, match=r"bad\.npz: is not a linear model"):
        linear.load(str(path))


def test_arrays_of_another_kind_are_named(tmp_path):
    made = model()
    made.weights = np.zeros(1000, np.int8)
    with pytest.raises(UserError, match="is a damaged linear model"):
        linear.from_bytes(made.to_bytes(), "x.npz")
    with pytest.raises(UserError, match=r"nowhere\.npz: there is no such model"):
        linear.load(str(Path(tmp_path, "nowhere.npz")))


def test_rare_words_alone_do_not_enter_a_model():
    lines = ["good day", "good sir", "bad day", "bad sir", "bad unheard"]
    positive = np.array([False, False, True, True, True])
    settings_of = {"bits": BITS, "power": 0.25, "cost": 1.0, "passes": 50}
    made = train_linear.train(lines, positive, np.ones(5), ("ok", "toxic"), **settings_of)
    assert made.probability("bad day", "toxic") > 0.5 > made.probability("good day", "toxic")
    assert made.weights[linear.word_features("unheard", BITS)].any() == 0
    assert np.abs(made.weights).max() == 127


def test_heavier_examples_pull_more():
    lines, positive = ["one word", "one word"], np.array([True, False])
    settings_of = {"bits": BITS, "power": 0.25, "cost": 1.0, "passes": 50}
    scores = [
        train_linear.train(lines, positive, np.array([weight, 1.0]), ("ok", "toxic"), **settings_of).bias
        for weight in (0.2, 1.0, 5.0)
    ]
    assert scores[0] < scores[1] < scores[2]
    assert scores[1] == pytest.approx(0, abs=1e-6)
