"""The compiled pass finds what plain Python finds by the definitions of ``filter.words``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dataeng
from dataeng.filter import scan as module
from dataeng.filter import words
from dataeng.filter.repeats import copies, different
from dataeng.filter.scan import C4_END, CLOSING, SENTENCE, TERMINAL, TRAILING_OFF, scan, stop_hash
from dataeng.filter.words import HAN, HANGUL, MARKS, SOUTH_EAST, span_class, unspaced_count

PIECE = re.compile(f"(?:[{span_class(*HAN)}]{{1,2}}|[{span_class(*SOUTH_EAST)}]{{1,4}})[{span_class(*MARKS)}]*")
SENTENCE_END = re.compile(r"[.?!…]+[\"'”’»)\]]*\s+|[。！？｡]+[」』）”’]*|[।॥؟۔]+\s*")
ALPHABET = st.sampled_from("aAéİ b.,  \n\n\t\u0b82あ我ก။。」、x!?…॥)\"'”-•*#한\ud800😀\x0b\x85\u3000\U00020001{")
TEXTS = st.text(ALPHABET, max_size=80) | st.text(max_size=80)


def plain_words(text):
    return PIECE.sub(r" \g<0> ", text).split()


def plain_lines(text):
    return [line for raw in text.split("\n") if (line := raw.strip())]


def cut(text, starts, lengths):
    return [text[a : a + b] for a, b in zip(starts, lengths, strict=True)]


@given(TEXTS)
def test_words(text):
    seen, expected = scan(text), plain_words(text)
    assert cut(text, seen.word_starts, seen.word_lengths) == expected
    assert seen.characters == sum(map(len, expected))
    assert seen.with_letter == sum(any(map(str.isalpha, word)) for word in expected)
    assert seen.unspaced == unspaced_count(text)
    assert seen.hangul == len(re.findall(f"[{span_class(*HANGUL)}]", text))
    assert (
        len(set(zip(seen.words.tolist(), expected, strict=True))) == len(set(expected)) == len(set(seen.words.tolist()))
    )


@given(TEXTS)
def test_lines_and_paragraphs(text):
    seen, expected = scan(text), plain_lines(text)
    assert cut(text, seen.line_starts, seen.line_lengths) == expected
    assert [text.split("\n")[number].strip() for number in seen.line_numbers] == expected
    wide = re.compile(f"[{span_class(*HAN, *HANGUL)}]")
    assert seen.line_columns.tolist() == [len(line) + len(wide.findall(line)) for line in expected]
    parts = [part for raw in re.split(r"\n\s*\n", text) if (part := raw.strip())]
    assert seen.paragraph_lengths.tolist() == [len(part) for part in parts]
    assert len(set(seen.paragraphs.tolist())) == len(set(parts))
    assert len(set(seen.lines.tolist())) == len(set(expected))


@given(TEXTS)
def test_how_lines_end(text):
    seen, lines = scan(text), plain_lines(text)
    ended = [line.rstrip(CLOSING).endswith(tuple(TERMINAL)) for line in lines]
    trailing = [line.endswith(("...", "…")) for line in lines]
    assert [bool(flag & SENTENCE) for flag in seen.line_flags] == ended
    assert [bool(flag & TRAILING_OFF) for flag in seen.line_flags] == trailing
    assert [bool(flag & C4_END) for flag in seen.line_flags] == [
        line.endswith((*TERMINAL, *"\"'”’»」』")) for line in lines
    ]
    assert (seen.ended, seen.trailing_off) == (sum(ended), sum(trailing))
    sentences = [sum(any(map(str.isalpha, part)) for part in SENTENCE_END.split(line)) for line in lines]
    assert seen.line_sentences.tolist() == sentences


@given(st.lists(st.integers(0, 30)))
def test_copies_and_different_keys(values):
    keys = np.array(values, np.uint64) * np.uint64(1 << 58)  # alike in their low bits, and zero
    lengths = np.array(values, np.int64)
    seen = [k for k in range(len(keys)) if keys[k] in keys[:k]]
    assert copies(keys, lengths) == (len(seen), sum(values[k] for k in seen), sum(values))
    sought = np.unique(keys[::2])
    assert different(keys, sought) == len(sought)
    assert different(keys[:0], sought) == 0


@pytest.mark.parametrize(("text", "word"), [('"The,', "the"), ("«ÉS»", "és"), ("(don't)", "don't"), ("ИЛИ.", "или")])
def test_stop_words_are_compared_in_lower_case_without_punctuation(text, word):
    assert scan(text).stripped.tolist() == [stop_hash(word)]
    assert stop_hash(word) != stop_hash(word + "x")


def test_words_of_signs_alone_are_no_stop_words():
    assert scan("-- ... !").stripped.tolist() == [0, 0, 0]


def test_compiled_code_need_not_be_kept(tmp_path):
    """Where no folder can be written the loops are compiled anew, with the same results."""
    code = tmp_path / "dataeng"
    (code / "filter").mkdir(parents=True)
    for source in (dataeng, words, module, sys.modules["dataeng.jit"], sys.modules["dataeng.filter.repeats"]):
        file = Path(source.__file__)
        name = file.relative_to(Path(dataeng.__file__).parent)
        (code / name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (code / "filter" / "__init__.py").write_text("")
    script = (
        "import numba.core.caching as c\n"
        "c.CacheImpl._locator_classes = []\n"
        "from dataeng.filter.repeats import copies\n"
        "import numpy as np\n"
        "print(copies(np.array([1, 1], np.uint64), np.array([5, 5])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "."},
    )
    assert done.stdout == "(1, 5, 10)\n"
    assert not list(tmp_path.rglob("*.nbi"))
