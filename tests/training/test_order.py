"""The order of samples: pure, complete, the same for any number of workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.order import Interval, Mixture, in_order, oversampled, permute, rank_share, sample_of


@given(st.integers(1, 3000), st.integers(0, 2**63))
@settings(max_examples=50, deadline=None)
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_permute_mixes_and_depends_on_its_key():
    one, two = permute(np.arange(1000), 1000, 1), permute(np.arange(1000), 1000, 2)
    assert (one != two).mean() > 0.9
    assert abs(np.corrcoef(one, np.arange(1000))[0, 1]) < 0.15


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_each_epoch_is_a_permutation_of_whole_windows(size, window, epoch, seed):
    order = [sample_of(seed, "web", epoch * size + k, size, window) for k in range(size)]
    assert sorted(order) == list(range(size))
    whole = size // window * window
    for start in range(0, whole, window):  # neighbours stay together, and the incomplete window comes last
        assert len({index // window for index in order[start : start + window]}) == 1
    assert all(index >= whole for index in order[whole:])


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_in_order_each_epoch_goes_through_the_windows_as_published(size, window, epoch, seed):
    order = [sample_of(seed, "web", epoch * size + k, size, window, in_order=True) for k in range(size)]
    assert sorted(order) == list(range(size))
    assert [index // window for index in order] == [k // window for k in range(size)]
    assert [sample_of(seed, "web", k, size, 1, in_order=True) for k in range(size)] == list(range(size))


def test_in_order_samples_of_a_window_are_mixed_anew_in_each_epoch():
    """No order of a window's samples is kept, and what one window does the next does not."""
    epochs = [[sample_of(0, "web", e * 200 + k, 200, 20, in_order=True) for k in range(200)] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    inside = {tuple(index % 20 for index in epochs[0][at : at + 20]) for at in range(0, 200, 20)}
    assert len(inside) == 10
    assert tuple(range(20)) not in inside


@pytest.mark.parametrize(
    ("order", "window", "chosen"),
    [
        ("permuted", 999, []),
        ("as_published", 39, ["code", "one", "web"]),
        ("as_published", 1, ["code", "one", "web"]),
        ({"web": "as_published", "code": "permuted"}, 300, ["web"]),
        ({}, 999, []),
        ("as_published", 40, "window = 40: the 40 samples of 'code' are one window"),
        ({"web": "as_published"}, 512, "window = 512: the 400 samples of 'web' are one window"),
        ({"wob": "as_published"}, 1, "order: no sample of a source 'wob' is drawn; those drawn: code, one, web"),
        ({"wob": "permuted"}, 1, "order: no sample of a source 'wob'"),
    ],
)
def test_which_sources_come_as_published_and_what_makes_no_sense(order, window, chosen):
    sizes = {"web": 400, "code": 40, "one": 1}
    if isinstance(chosen, list):
        assert in_order(order, sizes, window) == frozenset(chosen)
        return
    with pytest.raises(ValueError, match=f"^{chosen}"):
        in_order(order, sizes, window)


def test_epochs_differ():
    one, two = ([sample_of(0, "web", e * 200 + k, 200, 20) for k in range(200)] for e in (0, 1))
    assert one != two


WEIGHTS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0.01, 100), min_size=1)


@given(WEIGHTS, st.integers(1, 9000))
@settings(max_examples=30, deadline=None)
def test_a_mixture_keeps_its_weights_at_every_point(weights, count):
    mixture = Mixture([Interval(0, weights)])
    seen = dict.fromkeys(mixture.names, 0)
    total = sum(weights.values())
    for g in range(count):
        name, ordinal = mixture.at(g)
        assert ordinal == seen[name]  # no sample of a source is passed over or given twice
        seen[name] += 1
    for name, weight in weights.items():
        assert abs(seen[name] - count * weight / total) <= len(weights) + count * len(weights) / 4096


def test_a_small_source_is_not_given_oftener_than_its_weight_says():
    weights = {"web": 1_000_000.0, "qa": 100.0, "chat": 3.0}
    mixture, count = Mixture([Interval(0, weights)]), 1_000_000
    names = [mixture.at(g) for g in (*range(3), count)]
    assert names[0] == ("web", 0)
    given = dict(zip(mixture.names, mixture._counts(0, count), strict=True))
    assert given["qa"] == pytest.approx(100, rel=0.05)
    assert sum(given.values()) == count
    assert oversampled(weights) == {"chat": pytest.approx(1e6 / 262144 / 3, rel=0.01)}
    assert oversampled({"a": 0.7, "b": 0.3}) == {}


@given(WEIGHTS, WEIGHTS, st.integers(1, 5000), st.integers(1, 500))
@settings(max_examples=30, deadline=None)
def test_weights_change_at_a_global_sample_and_ordinals_go_on(first, second, start, more):
    mixture = Mixture([Interval(0, first), Interval(start, second)])
    alone = Mixture([Interval(0, first)])
    assert [mixture.at(g) for g in range(max(0, start - 50), start)] == [
        alone.at(g) for g in range(max(0, start - 50), start)
    ]
    seen: dict[str, int] = {}
    for g in range(start + more):
        name, ordinal = mixture.at(g)
        assert ordinal == seen.get(name, 0)
        seen[name] = ordinal + 1
        assert g < start or name in second


@pytest.mark.parametrize("starts", [[], [1], [0, 5, 5], [0, 9, 4]])
def test_intervals_must_begin_at_zero_and_ascend(starts):
    with pytest.raises(ValueError, match="begin at 0"):
        Mixture([Interval(start, {"a": 1}) for start in starts])


@given(st.integers(0, 10**9), st.integers(1, 64), st.integers(1, 9))
def test_ranks_share_a_batch_without_gap_or_overlap(start, batch, world):
    parts = [rank_share(start, batch, rank, world) for rank in range(world)]
    assert [g for part in parts for g in part] == list(range(start, start + batch))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
