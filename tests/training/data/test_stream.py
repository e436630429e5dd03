"""The stream of samples as ranks get it, through kills and changed worker counts; rows and documents in them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.tokens.shards import Shard, Source, Stream
from tests.training.tools import publish_tokens, recipe_at
from training.context import Context
from training.data import stream
from training.data.order import ByStep, Interval, Mixture
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

SAMPLE, MOST = 16, 12
SIZES = {"books": 11, "code": 7, "web": 30}
BASE = {name: 1 + 100 * index for index, name in enumerate(SIZES)}  # sample i of a source is BASE + i, all along


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    made = {}
    for name, samples in SIZES.items():
        tokens = np.repeat(np.arange(samples, dtype="<u2") + BASE[name], SAMPLE)
        parts = np.split(tokens, [len(tokens) // 3])  # a shard ends in the midst of a sample
        for index, part in enumerate(parts):
            part.tofile(folder / f"{name}-{index}.bin")
        shards = [Shard(path=f"{name}-{i}.bin", tokens=len(part), documents=1) for i, part in enumerate(parts)]
        source = Source(shards=shards, tokens=len(tokens), documents=1, samples=samples, remainder=0)
        made[name] = Stream(str(folder), source, "<u2")
    return made


def taken(streams, mixture, batch, rows, world, micro, position, steps, in_order=frozenset()):
    """For each step: its position, and the samples of all ranks in their order, as the trainer is given them."""
    every = []
    for rank in range(world):
        context = Context(
            Recipe("test", "/", 1, {}),
            "pretrain",
            TrainerConfig(),
            rank,
            world,
            feed=lambda read, keys: map(read, keys),
        )
        plan = stream.Plan(streams, mixture, 7, 4, SAMPLE, batch, rank, world, in_order)
        cut = stream.Rows(SAMPLE, micro, None)
        every.append(list(stream.batches(context, plan, cut, rows, position, batch.step(position) + steps)))
    found = []
    for together in zip(*every, strict=True):
        assert len({len(step.micro) for step in together}) == 1, "all ranks run the same number of micro-batches"
        assert len({(step.position, step.weight) for step in together}) == 1
        assert sum(int((b["targets"] != -100).sum()) for s in together for b in s.micro) == together[0].weight
        tokens = [b["tokens"][(b["targets"] != -100).all(1)] for step in together for b in step.micro]
        flat = torch.cat([part.reshape(-1) for part in tokens])
        whole = flat.reshape(-1, SAMPLE)
        assert (whole == whole[:, :1]).all(), "rows of a sample stay together, in order"
        found.append((together[0].position, whole[:, 0].tolist()))
    return found


PIECES = st.lists(st.tuples(st.integers(1, 10), st.integers(1, 9)), max_size=2, unique_by=lambda pair: pair[0])
RUNS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2)), min_size=1, max_size=8
)


@given(
    first=st.integers(1, 9),
    ramp=PIECES,
    change=st.integers(1, 60),
    weights=st.fixed_dictionaries({name: st.floats(0, 9) for name in SIZES}).filter(lambda w: sum(w.values()) > 0),
    runs=RUNS,
    in_order=st.frozensets(st.sampled_from(sorted(SIZES))),
)
@settings(max_examples=60)
def test_kills_and_changed_worker_counts_leave_the_stream_of_samples_as_it_is(
    streams, first, ramp, change, weights, runs, in_order
):
    """``runs``: workers, micro-batch, steps until the kill, steps since the last checkpoint then."""
    batch, rows = ByStep([(0, first), *sorted(ramp)]), ByStep([(0, 8), (5, 16)])
    mixture = Mixture([Interval(0, {"web": 2, "books": 1}), Interval(change, weights)])
    whole = taken(streams, mixture, batch, rows, 1, 2, 0, MOST, in_order)
    assert [position for position, _ in whole] == [batch.position(step + 1) for step in range(MOST)]
    done = 0
    for world, micro, steps, lost in [*runs, (1, 1, MOST, 0)]:
        end = min(steps, MOST - done)
        some = taken(streams, mixture, batch, rows, world, micro, batch.position(done), end, in_order)
        assert some == whole[done : done + len(some)]
        done = max(0, done + len(some) - (lost if done + len(some) < MOST else 0))
        if done == MOST:
            break
    seen = [sample for _, samples in whole for sample in samples]
    for g, sample in enumerate(seen):
        name, ordinal = mixture.at(g)
        assert BASE[name] <= sample < BASE[name] + SIZES[name]
        if name in in_order:  # windows of 4 samples come one after another, in every epoch
            assert (sample - BASE[name]) // 4 == ordinal % SIZES[name] // 4


def test_an_epoch_has_each_sample_once(streams):
    mixture = Mixture([Interval(0, {"web": 1})])
    samples = taken({"web": streams["web"]}, mixture, ByStep([(0, 10)]), ByStep([(0, 16)]), 3, 2, 0, 3)
    assert sorted(s for _, some in samples for s in some) == [BASE["web"] + i for i in range(SIZES["web"])]


@given(pieces=PIECES, first=st.integers(1, 9))
def test_a_schedule_finds_the_step_of_every_position(pieces, first):
    batch = ByStep([(0, first), *sorted(pieces)])
    position = 0
    for step in range(25):
        assert batch.position(step) == position
        assert batch.step(position) == step
        if batch.at(step) > 1:
            with pytest.raises(ValueError, match="no step begins"):
                batch.step(position + 1)
        position += batch.at(step)


@pytest.mark.parametrize("pieces", [[], [(1, 4)], [(0, 4), (0, 5)], [(0, 4), (9, 5), (8, 5)], [(0, 0)]])
def test_a_schedule_begins_at_step_0_and_ascends(pieces):
    with pytest.raises(ValueError, match="from step 0 on"):
        ByStep(pieces)


def test_documents_of_a_row_are_told_by_their_end():
    tokens = torch.tensor([[5, 6, 0, 7, 0, 0, 8], [1, 2, 3, 4, 5, 6, 0]])
    found = stream.documents(tokens, end=0)
    assert found["segments"].tolist() == [[1, 1, 1, 2, 2, 3, 4], [1] * 7]
    assert found["positions"].tolist() == [[0, 1, 2, 0, 1, 0, 0], list(range(7))]
    assert stream.documents(tokens[1:], end=0) == {}, "the last token ends what no row goes on with"


def test_a_documents_logits_are_those_of_it_alone():
    torch.manual_seed(0)
    model = Decoder(ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=16), 50)
    init_weights(model, 0)
    texts = [torch.randint(1, 50, (length,)) for length in (4, 7, 3)]
    row = torch.cat([torch.cat((text, torch.zeros(1, dtype=torch.int64))) for text in texts])
    [batch] = stream.micro_batches(row[None], 1, 1, end=0)
    together = model(batch["tokens"], positions_BL=batch["positions"], segments_BL=batch["segments"])[0]
    at = 0
    for text in texts:
        torch.testing.assert_close(together[at : at + len(text)], model(text[None])[0], atol=1e-5, rtol=1e-4)
        at += len(text) + 1
    assert (together[5:12] - model(batch["tokens"])[0, 5:12]).abs().max() > 1e-3, "plain rows see what came before"


def test_a_run_takes_windows_as_published_where_its_recipe_says_so(tmp_path):
    recipe = recipe_at(tmp_path, order={"web": "as_published"}, window=4)
    publish_tokens(recipe, 60, ("code", "web"))
    pretrain.check(recipe, "pretrain")  # the shards do not say that they have an order, which is let pass
    plan = pretrain.plan_of(Context(recipe, "pretrain", recipe.step("pretrain")))
    found = [plan.where(g) for g in range(60)]
    assert plan.in_order == {"web"}
    windows = [index // 4 for name, index in found if name == "web"]
    assert windows == sorted(windows)
    assert len(set(windows)) > 3
    windows = [index // 4 for name, index in found if name == "code"]
    assert windows != sorted(windows)
    for wrong, says in (({"wob": "permuted"}, r"pretrain\.order: no sample of a source 'wob'"), ("up", "as_published")):
        with pytest.raises(UserError, match=f"^test.toml: .*{says}"):
            pretrain.check(recipe_at(tmp_path, order=wrong), "pretrain")


def test_samples_are_read_where_torch_is_not_loaded():
    shown = "import sys, ray_jobs.feed, training.data.plan; print({'torch', 'pyspark'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", shown], text=True) == "set()\n"
    assert stream.Plan.__module__ == "training.data.plan"


@pytest.mark.parametrize(("most", "sizes"), [(16, [8, 8]), (9, [5, 5]), (4, [4]), (1, [1])])
def test_micro_batches_are_no_larger_than_what_a_rank_has(most, sizes):
    rows = stream.Rows(SAMPLE, 8, None)
    tokens = np.ones((most, SAMPLE + 1), np.int64)
    assert [len(batch["tokens"]) for batch in rows.micro(tokens, SAMPLE, most)] == sizes
    assert [len(batch["tokens"]) for batch in rows.micro(tokens, SAMPLE // 2, most)] == [2 * size for size in sizes]
