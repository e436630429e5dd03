"""Training classifiers: what is read, left out and held back; the same model every time."""

from __future__ import annotations

import ctypes
import io
import json
import random
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from dataeng import train_classifier as logic
from dataeng.cli import UserError
from dataeng.filter.classifier import tokens
from dataeng.precision_recall import measured, roc_auc
from dataeng.train_classifier import Config, Example, Source

GOOD, BAD = (
    ["river", "mill", "stone", "wheel", "water", "grain", "flour", "sack"],
    ["idiot", "fool", "stupid", "moron", "dumb", "liar", "trash", "scum"],
)


def config(tmp_path, **values):
    path = tmp_path / "a.jsonl"
    if not path.exists():
        path.write_text(json.dumps({"text": "one two three", "label": "ok"}) + "\n")
    values = {"data": str(tmp_path), "input": [{"path": "a.jsonl", "classes": {"ok": "ok", "bad": "toxic"}}]} | values
    return Config(**values)


def examples(number, seed=0):
    draw = random.Random(seed)
    return [
        Example(" ".join([*draw.choices(words, k=6), f"n{draw.randrange(1000)}"]), label, "s")
        for words, label in [(GOOD, "ok"), (BAD, "toxic")] * number
    ]


def test_records_become_examples(tmp_path):
    rows = [
        {"text": "A first TEXT!", "label": "ok"},
        {"text": "too short", "label": "ok"},
        {"text": "of another label entirely", "label": "spam"},
        {"text": "you are bad, bad", "label": "bad"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = config(tmp_path)
    assert logic.limited(made, made.input[0]) == [
        example
        for example in sorted(logic.read_source(made, made.input[0]), key=lambda e: logic._hash(e.line, "limit"))
    ]
    assert set(logic.read_source(made, made.input[0])) == {
        Example("a first text !", "ok", "a.jsonl"),
        Example("you are bad bad", "toxic", "a.jsonl"),
    }


def test_a_field_that_is_not_there_is_named(tmp_path):
    made = config(tmp_path, input=[{"path": "a.jsonl", "text": ["body"], "as_class": "ok"}])
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: has no field 'body'; its fields: label, text"):
        list(logic.read_source(made, made.input[0]))


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"b\*\.warc\.gz"):
        config(tmp_path, exclude=["b*.warc.gz"]).files()
    assert config(tmp_path).files() == [str(tmp_path / "a.jsonl")]


def test_pieces_hold_every_word_in_order(tmp_path):
    text = " ".join(f"word{n}" for n in range(1000))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
    source = Source(path="a.jsonl", as_class="ok", piece_words=(8, 50))
    lines = [example.line.split() for example in logic.read_source(config(tmp_path), source)]
    assert [word for line in lines for word in line] == text.split()
    assert all(8 <= len(line) <= 50 for line in lines[:-1])
    assert len({len(line) for line in lines}) > 5


def test_docstrings_of_the_library_are_examples(tmp_path):
    source = Source(path="stdlib", as_class="ok", limit=50)
    assert len(logic.limited(config(tmp_path), source)) == 50


def test_equal_texts_count_once_and_contradictions_not_at_all(tmp_path):
    made = [Example("a b c", "ok", "s"), Example("a b c", "ok", "t"), Example("d e f", "ok", "s")]
    made += [Example("d e f", "toxic", "t"), Example("d e f", "ok", "t")]
    assert logic.unique(made) == [Example("a b c", "ok", "s")]
    with pytest.raises(UserError, match="most_examples"):
        logic.ordered(examples(2), config(tmp_path, most_examples=2))


def test_the_split_follows_the_text_alone(tmp_path):
    made = config(tmp_path, held_back=0.3)
    trained, held = logic.split(examples(500), made)
    assert len(held) == pytest.approx(300, abs=60)
    again = logic.split([e._replace(label="x") for e in reversed(examples(500))], made)
    assert {e.line for e in again[1]} == {e.line for e in held}
    assert not {e.line for e in held} & {e.line for e in trained}


def test_sentences_that_name_groups_are_examples_and_those_measured_with_are_others(tmp_path, repo):
    source = Source(path="groups", as_class="ok")
    lines = {example.line for example in logic.limited(config(tmp_path, input=[source]), source)}
    measured = (repo / "benchmarks" / "neutral_groups.txt").read_text().splitlines()
    assert len(lines) > 1500
    assert len(set(measured)) >= 200
    assert not lines & {" ".join(tokens(line)) for line in measured}


def warc(path, pages):
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for page in pages:
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                "http://a.org/", "response", io.BytesIO(page.encode()), http_headers=headers
            )
            writer.write_record(record)


def test_what_stands_in_a_capture_is_left_out(tmp_path):
    texts = [" ".join(f"{name}{n}" for n in range(12)) for name in ("first", "second", "third", "fourth")]
    texts += ["three short words", "three other words"]
    made = [Example(text, "ok", "s") for text in texts]
    half = " ".join(texts[2].split()[:6])  # two of its eight shingles
    warc(tmp_path / "a.warc.gz", [f"<p>Intro <b>{texts[0].upper()}</b>, and {half}.</p>", f"<p>{texts[4]}, so</p>"])
    wanted = np.unique(np.concatenate([logic.own_shingles(example) for example in made]))
    found = logic.found_in_capture(str(tmp_path / "a.warc.gz"), wanted)
    assert [example.line for example in logic.without(made, found)] == [texts[1], texts[2], texts[3], texts[5]]
    assert logic.without(made, np.zeros(0, np.uint64)) == made


def test_training_twice_gives_the_same_model_whatever_stood_in_memory(tmp_path):
    made = config(tmp_path, keep_features=500, buckets=100_000, characters=(2, 4))
    first = logic.train(examples(150), made, 1)
    for size in (1 << 20, 6 << 20, 8 << 20):  # leave dirty blocks behind for the next allocation
        block = ctypes.create_string_buffer(size)
        ctypes.memset(block, 0xFF, size)
        del block
    assert logic.train(examples(150), made, 1) == first
    assert len(first) < 200_000


def test_metrics_tell_a_good_model_from_chance(tmp_path):
    made = config(tmp_path, keep_features=0, buckets=1000, minimum_count=1)
    found = logic.metrics(logic.train(examples(300), made, 1), examples(100, seed=1), made)
    assert found["held_back"]["all"]["roc_auc"] > 0.99
    assert found["held_back"]["all"]["positive"]["f1"] > 0.97
    assert found["held_back"]["s"] == found["held_back"]["all"]
    assert found["positive"] == "toxic"


def test_the_confusion_table_counts_every_example_once():
    scores, labels = np.array([0.1, 0.4, 0.5, 0.6, 0.9, 0.95]), np.array([False, True, True, False, True, True])
    found = measured(scores, labels, 0.5)
    assert found["confusion"] == {"true_positives": 2, "false_negatives": 2, "false_positives": 1, "true_negatives": 1}
    assert found["positive"]["precision"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["negative"]["recall"] == found["positive"]["recall"] == 0.5


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=30))
@settings(deadline=None)
def test_roc_auc_is_the_share_of_pairs_in_order(pairs):
    positives = [score for score, label in pairs if label]
    negatives = [score for score, label in pairs if not label]
    value = roc_auc(np.array([s for s, _ in pairs]), np.array([label for _, label in pairs]))
    if not positives or not negatives:
        assert np.isnan(value)
        return
    wins = [(p > n) + (p == n) / 2 for p in positives for n in negatives]
    assert value == pytest.approx(sum(wins) / len(wins))


def test_shingles_are_those_of_the_tokens():
    line = tokens("one two three four one two three")
    found = logic.shingles(line, 3).tolist()
    assert len(found) == 5
    assert found[0] == found[4]
    assert len(set(found)) == 4
    assert len(logic.shingles(line, 8)) == 0


def test_a_linear_model_is_trained_and_measured(tmp_path):
    made = config(tmp_path, kind="linear", bits=16, epochs=30)
    data = logic.train(examples(300), made, 1)
    assert logic.train(examples(300), made, 2) == data
    found = logic.metrics(data, examples(100, seed=1), made)
    assert found["held_back"]["all"]["roc_auc"] > 0.99
    assert found["held_back"]["all"]["negative"]["f1"] > 0.97


def test_a_linear_model_has_two_classes(tmp_path):
    made = config(tmp_path, kind="linear", bits=12)
    with pytest.raises(UserError, match="beside toxic there are: none"):
        logic.train([Example("a b c", "toxic", "s")], made, 1)
    with pytest.raises(UserError, match="beside toxic there are: ok, spam"):
        logic.train([Example("a", "toxic", "s"), Example("b", "ok", "s"), Example("c", "spam", "s")], made, 1)


def test_the_shipped_model_is_what_its_metrics_say(repo, data_dir):
    """Held-back texts once more; those that stand in the labelled crawl are among them here, so shares may differ."""
    path = repo / "dataeng" / "models" / "toxicity.npz"
    facts = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size == facts["bytes"] <= 2_000_000
    table = tomllib.loads((repo / "configs" / "classifiers.toml").read_text())["train_classifier"]
    made = Config(**table | {"data": str(data_dir)})
    _, held = logic.split(logic.limited(made, made.input[0]), made)
    found = logic.metrics(path.read_bytes(), held, made)["held_back"]["all"]
    stated = facts["held_back"]["toxicity/train.jsonl.gz"]
    assert found["roc_auc"] == pytest.approx(stated["roc_auc"], abs=0.01)
    assert found["negative"]["f1"] == pytest.approx(stated["negative"]["f1"], abs=0.02)
    assert stated["roc_auc"] >= 0.97
    assert stated["negative"]["f1"] >= 0.80
