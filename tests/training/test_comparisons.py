import pytest
import torch

from dataeng.cli import UserError
from training import comparisons, posttrain
from training.comparisons import Drawn, ranked_pairs
from training.context import Context
from training.data.examples import EncodedPair, Example
from training.rollouts import encode_prompts


@pytest.mark.parametrize(
    ("answers", "rewards", "pairs"),
    [
        ([(1,), (2,), (3,), (4,)], [0.0, 1.0, 0.0, 0.0], [(1, 3)]),
        ([(1,), (2,), (3,), (4,)], [0.0, 1.0, 0.5, 0.2], [(1, 0), (2, 3)]),
        ([(1,), (1,), (2,), (2,)], [1.0, 1.0, 0.0, 0.0], [(1, 2)]),
        ([(1,), (2,)], [1.0, 1.0], []),
        ([(1,), (2,), (3,)], [0.0, 1.0, 1.0], [(1, 0)]),
    ],
)
def test_better_answers_are_paired_with_worse_ones(answers, rewards, pairs):
    assert ranked_pairs(answers, rewards) == pairs


def test_drawn_pairs_do_not_depend_on_the_number_of_workers(root, monkeypatch):
    recipe = root(dpo={"model": "pretrain"})
    context = Context.single(recipe, "dpo")
    begin = posttrain.start(context, "pretrain")
    model = posttrain.frozen(context, begin.decoder, context.config, begin.state)
    rows = posttrain.data_rows(recipe, "dpo", "tasks", "train")[:40]
    prompts, _ = encode_prompts(begin.tokenizer, rows, 40)
    drawn = Drawn(samples=8, new_tokens=8, rewards={"exact": 0.0, "ended": 1.0})
    whole = comparisons.draw(context, drawn, begin, model, prompts, torch.float32)
    parts = []
    for rank in range(3):
        other = Context(recipe, "dpo", context.config, rank=rank, world=3)
        monkeypatch.setattr(other, "gather", lambda value: [value])
        fewer = drawn.model_copy(update={"at_once": 3})
        parts += comparisons.draw(other, fewer, begin, model, prompts, torch.float32)
    assert parts == whole
    stops = {begin.tokenizer.token_to_id(token) for token in ("<|end|>", "<|endoftext|>")}
    assert whole
    for pair in whole:
        assert pair.chosen.ids[-1] in stops
        assert pair.rejected.ids[-1] not in stops
        length = sum(not counts for counts in pair.chosen.mask)
        assert pair.chosen.ids[:length] == pair.rejected.ids[:length]


def test_too_few_pairs_are_named():
    with pytest.raises(UserError, match="0 pairs"):
        comparisons.split("dpo", [], 0.1)


def test_pairs_are_drawn_once_in_a_runs_life(root):
    context = Context.single(root(dpo={"model": "pretrain"}), "dpo")
    pairs = [EncodedPair(Example([5, 6, 7], [False, True, True]), Example([5, 8], [False, True]))]
    assert comparisons.kept(context, lambda: pairs) == pairs
    assert comparisons.kept(context, lambda: pytest.fail("drawn again")) == pairs
    context.checkpoint_fingerprint = "another"
    assert comparisons.kept(context, lambda: pairs * 2) == pairs * 2
