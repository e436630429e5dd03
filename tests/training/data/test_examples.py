import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.cli import UserError
from training.data.examples import messages_of, order, pack, pair_of, read_rows

ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, ANSWERED]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"category": "x", "instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "output": "a"},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "instances": [{"input": "", "output": "a"}, {"input": "", "output": "b"}]},
    ],
)
def test_rows_of_every_shape_become_chats(row):
    assert messages_of(row) == [ASKED, ANSWERED]


def test_an_input_stands_below_its_instruction():
    assert messages_of({"instruction": "q", "input": "more", "output": "a"})[0]["content"] == "q\nmore"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [{"role": "assistant", "content": "b"}]},
        {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
    ],
)
def test_pairs_of_every_shape_become_two_chats(row):
    pair = pair_of(row)
    assert pair.chosen == [ASKED, ANSWERED]
    assert pair.rejected == [ASKED, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(("read", "row"), [(messages_of, {"text": "x"}), (pair_of, {"prompt": "q", "chosen": "a"})])
def test_other_rows_are_refused_with_what_is_needed(read, row):
    with pytest.raises(UserError, match="needs"):
        read(row)


def test_files_are_read_plain_and_gzipped_and_bad_lines_are_named(tmp_path):
    plain, packed, bad = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl"
    plain.write_text('{"a": 1}\n\n{"a": 2}\r\n{"a": "one\u2028line"}\n', newline="")
    packed.write_bytes(gzip.compress(b'{"a": 3}\n'))
    bad.write_text('{"a": 1}\n{"a": \n')
    assert read_rows([str(plain), str(packed)]) == [{"a": 1}, {"a": 2}, {"a": "one\u2028line"}, {"a": 3}]
    with pytest.raises(UserError, match=r"c\.jsonl:2: is not JSON"):
        read_rows(str(bad))
    with pytest.raises(UserError, match="there is no such file"):
        read_rows(str(tmp_path / "none.jsonl"))
    packed.write_bytes(gzip.compress(b'{"a": 3}\n')[:12])
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(str(packed))
    plain.write_text("\n")
    with pytest.raises(UserError, match="holds no rows"):
        read_rows(str(plain))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(50, 120))
def test_packing_takes_each_example_once_and_wastes_at_most_half(lengths, width):
    rows = pack(lengths, width)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= width for row in rows)
    assert len(rows) <= 1 or sum(lengths) > len(rows) * width / 2
    with pytest.raises(ValueError, match="tokens"):
        pack([width + 1], width)


@given(st.integers(0, 3), st.integers(0, 200), st.integers(1, 60), st.integers(1, 40))
def test_order_takes_every_example_once_an_epoch_and_resumes_anywhere(seed, start, count, size):
    whole = order(seed, "sft", 0, start + count, size)
    assert order(seed, "sft", start, count, size) == whole[start:]
    for epoch in range(len(whole) // size):
        assert sorted(whole[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_the_development_sets_are_read(data_dir):
    for name in ("alpaca_en_demo", "self_instruct_seed_tasks", "gsm8k_train"):
        chats = [messages_of(row) for row in read_rows(str(data_dir / "sft" / f"{name}.jsonl.gz"))]
        assert all([turn["role"] for turn in one] == ["user", "assistant"] for one in chats)
        assert sum(bool(one[1]["content"]) for one in chats) > 0.99 * len(chats)
    for name in ("hh_harmless", "dpo_en_demo"):
        pairs = [pair_of(row) for row in read_rows(str(data_dir / "preferences" / f"{name}.jsonl.gz"))]
        assert all(side[-1]["role"] == "assistant" for pair in pairs for side in pair)
        assert all(pair.chosen[0]["role"] in ("user", "system") for pair in pairs)
        same = sum(pair.chosen[:-1] == pair.rejected[:-1] for pair in pairs)
        assert same > 0.9 * len(pairs)
    assert json.dumps(pairs[0].chosen)
