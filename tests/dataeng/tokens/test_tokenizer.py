"""Tokenizers of every kind: what they encode, they decode; equal texts give equal bytes."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataeng.cli import UserError
from dataeng.tokens import chat, tokenizer

TEXTS = [
    "The mill's wheel turns 120 times an hour; grain becomes flour.",
    "Das Mühlrad dreht sich langsam, und das Korn wird zu Mehl.",
    "Мельница стоит у реки. 水車が回る。",
] * 20
KINDS = ["bpe", "wordpiece", "character", "word"]


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


@pytest.mark.parametrize("kind", ["character", "word"])
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
    assert [made.id_to_token(number) for number in range(len(wanted))] == wanted
    assert made.token_to_id("<|span_1|>") is not None
    assert made.get_vocab_size() <= 400
    ids, mask = chat.encode_chat(made, [{"role": "user", "content": "grain"}, {"role": "assistant", "content": "hour"}])
    assert ids[-1] == made.token_to_id(chat.END)
    assert sum(mask) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_equal_bytes(kind):
    assert learned(kind).to_str() == MADE[kind].to_str()


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
