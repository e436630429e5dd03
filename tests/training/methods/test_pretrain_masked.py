"""Masked language modelling: which tokens are hidden follows from seed, global sample and place alone."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from dataeng.cli import UserError
from dataeng.tokens import chat, tokenizer
from tests.training.tools import SAMPLE, publish_tokens, recipe_at, text
from training import huggingface
from training.context import Context
from training.data import stream
from training.data.order import ByStep
from training.generate import noise_keys
from training.likelihood import IGNORED
from training.methods import pretrain
from training.noise import Masking
from training.objectives import Masker, word_edges

WORDS = tokenizer.learn((text(n) for n in range(50)), tokenizer.Config(vocabulary=330, masks=True))
ENCODER = {"kind": "encoder", "layers": 2, "width": 32, "heads": 4, "context": SAMPLE}


def masker_of(**values):
    return Masker(Masking(**values), WORDS, "tokenizer.json", 5)


def rows_of(count, width=256):
    ids = WORDS.encode(" ".join(text(n) for n in range(200))).ids
    return np.array([ids[n * 40 : n * 40 + width] for n in range(count)])


def hidden(masker, rows, samples):
    return masker(rows, noise_keys(masker.seed, 0, samples, 1), np.zeros(len(rows), np.int64))


@pytest.mark.parametrize("whole_words", [False, True])
def test_the_shares_are_those_of_bert(whole_words):
    rows = rows_of(120)
    masker = masker_of(whole_words=whole_words)
    shown, targets = hidden(masker, rows, range(120))
    chosen = targets != IGNORED
    assert (chosen.sum(1) == round(0.15 * 256)).all()
    assert (targets[chosen] == rows[chosen]).all()
    assert (shown[~chosen] == rows[~chosen]).all()
    masked, kept = shown[chosen] == masker.mask, shown[chosen] == rows[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert (~masked & ~kept).mean() == pytest.approx(0.1, abs=0.02)
    assert np.bincount(np.nonzero(chosen)[1], minlength=256).std() < 6  # no place is liked better


def test_whole_words_are_hidden_together():
    rows = rows_of(40)
    _, targets = hidden(masker_of(whole_words=True), rows, range(40))
    parted = words = 0
    for row, chosen in zip(rows, targets != IGNORED, strict=True):
        spaced = [WORDS.decode([token])[:1].isspace() for token in row]
        starts = [0, *(n for n in range(1, 256) if spaced[n])]
        for start, end in zip(starts, [*starts[1:], 256], strict=True):
            parted += 0 < chosen[start:end].sum() < end - start
            words += chosen[start:end].all()
    assert parted <= 40 / 4  # the last word of a row, where nothing fitted
    assert words > 40 * 20


def test_words_begin_where_the_vocabulary_says():
    code = tokenizer.learn((f"## title {n} #### part" for n in range(50)), tokenizer.Config(vocabulary=300, masks=True))
    assert any(token.startswith("##") for token in code.get_vocab())
    assert word_edges(code)[0].sum() > 50, "letters go on with words, though there is a token that begins with ##"
    pieces = {"<unk>": 0, "\u2581the": 1, "\u2581mill": 2, "er": 3}
    spaced = Tokenizer(models.BPE(vocab=pieces, merges=[], unk_token="<unk>"))
    spaced.decoder = decoders.Metaspace()
    assert word_edges(spaced)[0].tolist()[1:] == [False, False, True]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31), st.booleans(), st.floats(0.01, 0.99))
def test_every_row_has_as_many_targets_whatever_is_in_it(width, seed, whole_words, share):
    masker = masker_of(whole_words=whole_words, share=share)
    rows = np.random.default_rng(seed).integers(0, masker.vocabulary, (3, width))
    rows[0] = 0  # special tokens only
    _, targets = hidden(masker, rows, range(3))
    assert ((targets != IGNORED).sum(1) == max(1, round(share * width))).all()


def recipe_of(root, **more):
    recipe = recipe_at(root, **more)
    recipe.tables["pretrain"]["model"] = ENCODER
    publish_tokens(recipe, tokenizer_json=WORDS.to_str())
    return recipe


def batches(recipe, rank, world, micro_batch, position=0):
    config = recipe.step("pretrain").model_copy(update={"micro_batch": micro_batch})
    context = Context(recipe, "pretrain", config, rank=rank, world=world)
    plan = pretrain.plan_of(context)
    layout = pretrain._layout(recipe, "pretrain")[1]
    rows = pretrain.rows_of(recipe, layout, micro_batch, False, "test")
    widths = ByStep(config.widths(SAMPLE))
    steps = stream.batches(context, plan, rows, widths, position, config.max_steps)
    return list(masker_of().steps(steps, plan, widths))


def real_rows(step):
    rows = [torch.stack((micro["tokens"], micro["targets"]), 1) for micro in step.micro]
    rows = torch.cat(rows)
    return [row.tolist() for row in rows[(rows[:, 1] != IGNORED).any(1)]]


def test_workers_micro_batches_and_resuming_hide_the_same_tokens(tmp_path):
    recipe = recipe_of(tmp_path, row_tokens=16)
    whole = batches(recipe, 0, 1, 6)
    assert [step.weight for step in whole] == [6 * 2 * round(0.15 * 16)] * 6
    for world, micro_batch in ((1, 4), (2, 3), (3, 1)):
        parts = [batches(recipe, rank, world, micro_batch) for rank in range(world)]
        for number, step in enumerate(whole):
            assert [row for part in parts for row in real_rows(part[number])] == real_rows(step)
    assert [real_rows(step) for step in batches(recipe, 0, 1, 6, position=18)] == [real_rows(s) for s in whole[3:]]
    assert len({json.dumps(real_rows(step)) for step in whole}) == 6


def test_an_encoder_learns_and_transformers_loads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    recipe = recipe_of(
        tmp_path, max_steps=60, batch=12, micro_batch=12, learning_rate=2e-2, warmup=5, checkpoint_every=100
    )
    pretrain.check(recipe, "pretrain")
    pretrain.run(Context.single(recipe, "pretrain"))
    rows = [json.loads(line) for line in (tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(np.log(WORDS.get_vocab_size()), abs=0.3)
    assert rows[-1]["validation_loss"] < 3.6  # sixteen words in any order: ln 16 = 2.77, a little more from one's parts
    folder = f"{recipe.root}/pretrain/export"
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    assert type(theirs).__name__ == "ModernBertForMaskedLM"
    assert transformers.AutoTokenizer.from_pretrained(folder).mask_token_id == WORDS.token_to_id(chat.MASK)
    assert huggingface.read_config(folder)[0].kind == "encoder"


def test_a_tokenizer_without_a_mask_is_named_before_the_run(tmp_path):
    recipe = recipe_at(tmp_path)
    recipe.tables["pretrain"]["model"] = ENCODER
    publish_tokens(recipe)
    with pytest.raises(UserError, match=r"tokenizer\.json: has no token <\|mask\|>.*tokenizer\.masks = true"):
        pretrain.check(recipe, "pretrain")
    recipe.tables["pretrain"]["mesh"] = {"tensor": 2}
    with pytest.raises(UserError, match=r"pretrain\.mesh: .*this is an encoder"):
        pretrain.check(recipe, "pretrain")
    recipe.tables["sft"] = {"model": "pretrain"}
    recipe.tables["pretrain"]["masking"] = {"hidden": 0.9, "random": 0.2}
    with pytest.raises(UserError, match=r"hidden 0\.9 and random 0\.2"):
        recipe.step("pretrain")
