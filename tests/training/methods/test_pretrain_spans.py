"""Span corruption: what is taken out and what is left make the row again; workers take out the same."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.tokens import chat, tokenizer
from tests.training.tools import SAMPLE, publish_tokens, recipe_at, text
from training.context import Context
from training.data import stream
from training.data.order import ByStep
from training.generate import noise_keys
from training.likelihood import IGNORED
from training.methods import pretrain
from training.noise import SpanNoise
from training.objectives import Spans

WORDS = tokenizer.learn((text(n) for n in range(50)), tokenizer.Config(vocabulary=360, spans=30))
MODEL = {"kind": "encoder_decoder", "layers": 1, "width": 32, "heads": 4, "context": SAMPLE}
FIRST = WORDS.token_to_id(chat.span(0))


def spans_of(width, **values):
    return Spans(SpanNoise(**values), WORDS, "tokenizer.json", 5, width)


def batch_of(tokens, **more):
    tokens = torch.as_tensor(tokens)
    return {"tokens": tokens, "targets": tokens, **{key: torch.as_tensor(value) for key, value in more.items()}}


def put_together(read, targets, marks, end):
    """The row that was taken apart."""
    answer = [int(token) for token in targets if token != IGNORED]
    assert answer.pop() == end
    said = {}
    for token in answer:
        if token in marks:
            said[token] = []
            last = token
        else:
            said[last].append(token)
    row = [int(token) for token in read]
    assert row.pop() == end
    return [token for part in row for token in said.get(part, [part])], said


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 90), st.integers(0, 2**31), st.floats(0.02, 0.55), st.floats(1, 8))
def test_a_row_is_taken_apart_and_can_be_put_together(width, seed, share, mean):
    spans = spans_of(width, share=min(share, 25 / width), mean=mean)
    rows = np.random.default_rng(seed).integers(40, 300, (3, width))
    made = spans.batch(batch_of(rows), noise_keys(seed, 0, range(3), 1), np.zeros(3, np.int64))
    count = spans.config.spans(width)
    for row, read, targets, answers in zip(rows, made["tokens"], made["targets"], made["answers"], strict=True):
        found, said = put_together(read, targets, set(spans.marks), spans.end)
        assert found == row.tolist()
        assert list(said) == spans.marks[:count].tolist()
        assert all(said.values())
        assert sum(map(len, said.values())) == spans.config.tokens(width)
        assert [int(answers[0]), *targets[:-1].tolist()] == [spans.pad, *answers[1:].tolist()]
    assert (made["targets"] != IGNORED).sum() == 3 * spans.count(width)


def test_every_place_is_taken_out():
    spans = spans_of(64)
    out = spans.noise(64, noise_keys(5, 0, range(4000), 1), np.zeros(4000, np.int64))
    assert (out.sum(1) == round(0.15 * 64)).all()
    assert out.mean(0).min() > 0.035  # a third at the ends, where only spans that begin or end there are
    assert out.mean(0).max() < 0.2


def test_tokens_keep_to_their_documents_and_rows_that_fill_up_count_for_nothing():
    spans = spans_of(40)
    segments = np.repeat([[1] * 25 + [2] * 15], 3, 0)
    rows = np.where(segments == 1, 100, 200)
    made = spans.batch(batch_of(rows, segments=segments), noise_keys(1, 0, range(2), 1), np.zeros(2, np.int64))
    for side, of_side in (("tokens", "segments"), ("targets", "answer_segments")):
        for number, token in ((1, 100), (2, 200)):
            assert (made[of_side][:2][made[side][:2] == token] == number).all()
    assert (made["targets"][2] == IGNORED).all()
    assert made["tokens"].shape[0] == 3


def recipe_of(root, **more):
    recipe = recipe_at(root, **more)
    recipe.tables["pretrain"]["model"] = MODEL
    publish_tokens(recipe, tokenizer_json=WORDS.to_str())
    return recipe


def real_rows(recipe, rank, world, micro_batch):
    config = recipe.step("pretrain").model_copy(update={"micro_batch": micro_batch})
    plan = pretrain.plan_of(context := Context(recipe, "pretrain", config, rank=rank, world=world))
    rows = pretrain.rows_of(recipe, pretrain._layout(recipe, "pretrain")[1], micro_batch, False, "test")
    widths = ByStep(config.widths(SAMPLE))
    found = []
    for step in spans_of(SAMPLE).steps(stream.batches(context, plan, rows, widths, 0, 4), plan, widths):
        parts = [torch.cat((micro["tokens"], micro["targets"]), 1) for micro in step.micro]
        kept = torch.cat(parts)
        found.append((step.weight, kept[(kept[:, -1] != IGNORED)].tolist()))
    return found


def test_workers_and_micro_batches_take_out_the_same(tmp_path):
    recipe = recipe_of(tmp_path)
    whole = real_rows(recipe, 0, 1, 6)
    assert whole[0][0] == 6 * spans_of(SAMPLE).count(SAMPLE)
    for world, micro_batch in ((2, 2), (3, 1)):
        parts = [real_rows(recipe, rank, world, micro_batch) for rank in range(world)]
        for number, (_, rows) in enumerate(whole):
            assert [row for part in parts for row in part[number][1]] == rows


def test_an_encoder_decoder_trains_and_transformers_loads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    recipe = recipe_of(tmp_path, max_steps=25, batch=12, micro_batch=12, learning_rate=1e-2, checkpoint_every=100)
    pretrain.check(recipe, "pretrain")
    pretrain.run(Context.single(recipe, "pretrain"))
    rows = [json.loads(line) for line in (tmp_path / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(np.log(WORDS.get_vocab_size()), abs=1)
    assert rows[-1]["validation_loss"] < rows[0]["loss"] - 1
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(f"{recipe.root}/pretrain/export")
    assert type(theirs).__name__ == "T5ForConditionalGeneration"


def test_a_tokenizer_with_too_few_span_tokens_is_named_before_the_run(tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.tables["pretrain"]["spans"] = {"share": 0.59, "mean": 1.0}
    pretrain.check(recipe, "pretrain")
    other = recipe_at(tmp_path / "other")
    other.tables["pretrain"]["model"] = MODEL
    publish_tokens(other)
    with pytest.raises(UserError, match=r"has no 2 tokens <\|span_0\|> …, .*tokenizer\.spans = 2") as error:
        pretrain.check(other, "pretrain")
    assert "\n" not in str(error.value)
