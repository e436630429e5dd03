import json

import pytest
import torch

from dataeng import stage
from training.context import Context
from training.data.examples import collate
from training.methods import reward
from training.methods.reward import EncodedPair, RewardModel
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights

CONFIG = ModelConfig(layers=2, width=32, heads=4, context=64)


@pytest.fixture
def model():
    made = RewardModel(Decoder(CONFIG, 60))
    init_weights(made.decoder, 1)
    torch.nn.init.normal_(made.score.weight)
    return made


def example(*ids):
    return reward.Example(list(ids), [False] * (len(ids) - 1) + [True])


def scores(model, examples, width):
    batch = collate(examples, [[i] for i in range(len(examples))], width, 1, len(examples))
    return model(batch["tokens"], batch["positions"], batch["segments"])


def test_bradley_terry_at_known_margins():
    chosen, rejected = torch.tensor([2.0, 2.0, 0.0]), torch.tensor([2.0, 1.0, 1.0])
    assert reward.bradley_terry(chosen, rejected).tolist() == pytest.approx([0.693147, 0.313262, 1.313262], abs=1e-6)


def test_the_score_is_that_of_the_last_token_whatever_the_padding(model):
    one, other = example(5, 6, 7, 8), example(9, 4)
    wide = scores(model, [one, other], 24)
    alone = torch.cat([scores(model, [one], 4), scores(model, [other], 2)])
    torch.testing.assert_close(wide, alone)
    hidden = model.decoder(torch.tensor([one.ids]), return_hidden=True)
    torch.testing.assert_close(wide[0], model.score(hidden[0, -1])[0])


def test_pairs_that_fill_up_count_for_nothing(model):
    pair = EncodedPair(example(5, 6, 7), example(5, 6, 9))
    exact, filled = (reward.pair_batch([pair], 8, 1, height) for height in (1, 4))
    for one, two in zip(reward.loss(model, exact)[:2], reward.loss(model, filled)[:2], strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_all_pairs_in_as_many_micro_batches(world):
    pairs = [EncodedPair(example(5, n), example(6, n)) for n in range(2, 13)]
    parts = [reward.cut(Context(None, "r", None, rank=r, world=world), pairs, 8, 1, 2) for r in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert sum(int(batch["real"].sum()) for part in parts for batch in part) == 11


def test_it_learns_to_tell_held_back_pairs_and_exports_its_score(root):
    recipe = root(reward={"model": "pretrain", "max_steps": 40, "learning_rate": 1e-2, "batch": 32})
    reward.check(recipe, "reward")
    reward.run(Context.single(recipe, "reward"))
    manifest = stage.need_manifest(recipe.root, "reward", "test")
    assert manifest.details["metrics"]["accuracy"] > 0.75  # of the last batch of training
    assert 0 <= manifest.details["metrics"]["validation_accuracy"] <= 1
    assert manifest.details["held_back"] == 24


def test_transformers_gives_the_same_score(root):
    transformers = pytest.importorskip("transformers")
    recipe = root(reward={"model": "pretrain", "learning_rate": 1e-2})
    context = Context.single(recipe, "reward")
    reward.run(context)
    begin = reward.posttrain.start(context, "reward")
    state = reward.posttrain.scored_state(begin.state, "score", begin.architecture.width)
    ours = reward.posttrain.frozen(context, lambda: RewardModel(begin.decoder()), context.config, state)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(f"{recipe.root}/reward/export")
    ids = [30, 40, 50, 60]
    found = scores(ours, [example(*ids)], 8)
    assert found.abs().item() > 1e-4
    torch.testing.assert_close(theirs(torch.tensor([ids])).logits[0], found, atol=1e-5, rtol=1e-4)


def test_files_of_pairs_hold_some_back(root, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {n}", "chosen": "yes", "rejected": "no"} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = root(reward={"model": "pretrain", "data": str(path), "held_back": 0.25})
    reward.run(Context.single(recipe, "reward"))
    details = stage.need_manifest(recipe.root, "reward", "test").details
    assert (details["pairs"], details["held_back"]) == (15, 5)
