"""Tokenizers of every kind: what they encode, they decode; equal texts give equal bytes."""

import itertools
import math
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.tokens import chat, draw, tokenizer, unigram

TEXTS = [
    "The mill's wheel turns 120 times an hour; grain becomes flour.",
    "Das Mühlrad dreht sich langsam, und das Korn wird zu Mehl.",
    "Мельница стоит у реки. 水車が回る。",
] * 20
KINDS = ["bpe", "wordpiece", "unigram", "character", "word"]


def learned(kind, **more):
    return tokenizer.learn(TEXTS, tokenizer.Config(kind=kind, vocabulary=400, **more))


MADE = {kind: learned(kind) for kind in KINDS}


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("<|end|> \r\n\t\x00\U0010ffff é e\u0301 \u200d👩‍🚀 007")
def test_bytes_go_around_whatever_the_text(text):
    made = MADE["bpe"]
    ids = chat.encode_text(made, text)
    assert made.decode(ids, skip_special_tokens=False) == text
    assert not set(ids) & {made.token_to_id(token) for token in chat.SPECIAL_TOKENS}


@pytest.mark.parametrize("kind", ["character", "word", "unigram"])
def test_what_was_seen_goes_around_and_what_was_not_is_unknown(kind):
    made = MADE[kind]
    for text in [*TEXTS[:3], "grain  turns" if kind == "word" else "hour flour"]:
        assert made.decode(chat.encode_text(made, text), skip_special_tokens=False) == text
    unknown = made.token_to_id(chat.UNKNOWN)
    assert unknown in chat.encode_text(made, "Ω")
    assert unknown not in chat.encode_text(made, TEXTS[0])


def test_word_pieces_are_joined_again():
    made = MADE["wordpiece"]
    ids = chat.encode_text(made, "grain flour turns")
    assert made.decode(ids) == "grain flour turns"
    assert any(made.id_to_token(number).startswith("##") for number in range(made.get_vocab_size()))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first_and_the_vocabulary_stays_within_its_bound(kind):
    made = learned(kind, masks=True, spans=2)
    wanted = [*chat.SPECIAL_TOKENS, chat.MASK]
    first = 0 if kind != "unigram" else made.get_vocab_size() - len(wanted) - 2
    assert [made.id_to_token(first + number) for number in range(len(wanted))] == wanted
    assert made.token_to_id("<|span_1|>") is not None
    assert made.get_vocab_size() <= 400
    ids, mask = chat.encode_chat(made, [{"role": "user", "content": "grain"}, {"role": "assistant", "content": "hour"}])
    assert ids[-1] == made.token_to_id(chat.END)
    assert sum(mask) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_equal_bytes(kind):
    assert learned(kind).to_str() == MADE[kind].to_str()


def test_a_unigram_piece_is_worth_what_its_absence_costs():
    scores = {"ab": -1.0, "a": -2.0, "b": -3.0, "abc": -1.5, "c": -2.5}
    assert unigram.without("abc", scores, 3) == -3.5
    assert unigram.without("ab", scores, 3) == -5.0
    assert unigram.without("c", scores, 3) == -math.inf
    made = MADE["unigram"]
    pieces = [made.id_to_token(number) for number in chat.encode_text(made, " grain becomes flour.")]
    assert pieces == ["▁grain", "▁becomes", "▁flour."]
    special = {made.token_to_id(token) for token in chat.SPECIAL_TOKENS}
    assert not special & set(chat.encode_text(made, "<|end|> <|unknown|><|endoftext|>"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_sample_of_blocks_is_that_of_all_rows_at_once(data):
    ids = data.draw(st.lists(st.text("0123456789abcdef", min_size=6, max_size=6), unique=True, max_size=40))
    rows = [{"id": name, "text": "é" * (1 + int(name[-1], 16)), "language": None} for name in ids]
    limit = data.draw(st.integers(1, 400))
    edges = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    schema = pa.schema([(name, pa.string()) for name in draw.COLUMNS])
    blocks = [
        pa.Table.from_pylist(rows[begin:end], schema=schema)
        for begin, end in itertools.pairwise([0, *edges, len(rows)])
    ]
    totals = Counter()
    for block in blocks:
        for row in draw.weighed(block).to_pylist():
            totals[row["first"]] += row["bytes"]
    last = draw.last_first(totals, limit)
    kept = [row for block in blocks for row in draw.up_to(block, last).to_pylist()]
    assert tokenizer.sample(kept, limit) == tokenizer.sample(rows, limit)


def test_fertility_is_counted_by_language():
    texts = [("en", "the mill the mill"), ("de", "das Rad"), ("en", "a b"), ("", "x")]
    made = MADE["character"]
    found = tokenizer.fertility(made, texts)
    assert list(found) == ["de", "en", "unknown"]
    assert found["en"] == {"bytes": 20, "words": 6, "tokens": 20, "tokens_per_word": 3.3333, "bytes_per_token": 1.0}


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="there is no such file"):
        tokenizer.taken(str(path))
    path.write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer") as error:
        tokenizer.taken(str(path))
    assert "\n" not in str(error.value)


def test_what_a_file_keeps_of_its_last_use_cuts_and_fills_nothing(tmp_path):
    made = tokenizer.learn(["a mill turns"] * 9, tokenizer.Config(vocabulary=300))
    made.enable_truncation(3)
    made.enable_padding(length=50)
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = tokenizer.load(str(tmp_path / "tokenizer.json"))
    [short, long] = loaded.encode_batch(["a", "a mill turns " * 9], add_special_tokens=False)
    assert len(short.ids) == 1
    assert loaded.decode(long.ids) == "a mill turns " * 9
