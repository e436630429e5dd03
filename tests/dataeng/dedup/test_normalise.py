"""Words and exact hashes: what two texts may differ in and still be equal."""

from __future__ import annotations

import hashlib
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.dedup.hashing import ALONE, EXPANDED, SEPARATOR
from dataeng.dedup.normalise import exact_hash, table, word_hashes

SPACES = "".join(chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace())


def plain_words(text: str) -> list[str]:
    """The words of a text by the definition in the module, character by character."""
    words, word = [], ""
    for character in unicodedata.normalize("NFD", text) + " ":
        category = unicodedata.category(character)
        if category in ("Mn", "Me", "Cf"):
            continue
        alone = ord(character) < 0x20000 and bool(table()[ord(character)] & ALONE)
        alone |= 0x20000 <= ord(character) < 0x40000
        if category == "Nd":
            word += "0"
        elif not alone and (category[0] in "LN" or category == "Mc"):
            word += character.lower()[0]
        else:
            words += [word] * bool(word) + [character] * alone
            word = ""
    return words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Hello, World!", "hello world"),
        ("in 1999 it was", "in 2024 it was"),
        ("a–b…c", "a b c"),
        ("naïve café", "naive cafe"),
        ("Über", "U\u0308ber"),
        ("ΑΣ", "ας".replace("ς", "σ")),
        ("soft\u00adhyphen", "softhyphen"),
        ("１２", "12"),
        ("tab\tnew\nline", "tab new line"),
    ],
)
def test_these_have_the_same_words(one: str, other: str) -> None:
    assert word_hashes(one).tolist() == word_hashes(other).tolist()


@pytest.mark.parametrize(("one", "other"), [("ab c", "a bc"), ("ab", "ba"), ("aa", "a"), ("1", "11"), ("мир", "миp")])
def test_these_have_not(one: str, other: str) -> None:
    assert word_hashes(one).tolist() != word_hashes(other).tolist()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ,.! ", 0),
        ("one", 1),
        ("日本語です", 5),
        ("ภาษาไทย", 7),
        ("เที่ยว", 4),  # marks above a consonant are no words
        ("ភាសាខ្មែរ", 8),
        ("ພາສາລາວ", 7),
        ("がぎ", 2),  # also where the mark stands apart
        ("か\u3099き\u3099", 2),
        ("한국어 문서", 2),
        ("a日b", 3),
        ("𠀀𠀁", 2),
        ("हिन्दी पाठ", 2),
    ],
)
def test_number_of_words(text: str, count: int) -> None:
    assert len(word_hashes(text)) == count


@settings(max_examples=200)
@given(st.text())
def test_words_follow_the_definition(text: str) -> None:
    words, hashes = plain_words(text), word_hashes(text).tolist()
    assert len(words) == len(hashes)
    assert len(set(words)) == len(set(hashes))  # equal words have equal hashes, others others
    assert [words.index(word) for word in words] == [hashes.index(value) for value in hashes]


def test_ascii_and_other_texts_hash_their_common_words_alike() -> None:
    assert word_hashes("plain words").tolist() == word_hashes("plain words é").tolist()[:2]


def test_each_character_has_the_words_of_its_parts() -> None:
    """A text is taken apart (NFD) only where its characters need it: to the same words as if it always were."""
    codes = table()
    for chosen in (codes & EXPANDED == 0, codes & EXPANDED > 0):
        text = " ".join(f"a{chr(code)}b" for code in np.flatnonzero(chosen))
        assert word_hashes(text).tolist() == word_hashes(unicodedata.normalize("NFD", text)).tolist()
    text = "".join(f"a{chr(code)}b" for code in range(0x1F000, 0x40100))
    assert word_hashes(text).tolist() == word_hashes(unicodedata.normalize("NFD", text)).tolist()
    for one, other in (("\u1b44", "\u302e"), ("\u1b44", "\u0334"), ("\U0001d165", "\U0001d16d")):
        assert word_hashes(f"a{one}{other}").tolist() == word_hashes(f"a{other}{one}").tolist()


def test_lower_case_is_stable() -> None:
    codes = table() & ~EXPANDED
    letters = codes[(codes > SEPARATOR + 1) & (codes < ALONE)]
    assert np.isin(codes[letters], letters).all()
    assert (codes[codes[letters]] == codes[letters]).all()


@pytest.mark.parametrize(("one", "other"), [("a  b\n", "a b"), ("é", "e\u0301"), ("\u00a0a\u2003b", "a b")])
def test_exact_hash_folds_white_space_and_composition(one: str, other: str) -> None:
    assert exact_hash(one) == exact_hash(other)


@pytest.mark.parametrize(("one", "other"), [("A", "a"), ("a b", "ab"), ("a.", "a"), ("1", "2"), ("ﬁ", "fi")])
def test_exact_hash_folds_nothing_else(one: str, other: str) -> None:
    assert exact_hash(one) != exact_hash(other)


@settings(max_examples=300)
@given(st.text(st.one_of(st.sampled_from(SPACES), st.characters(), st.sampled_from("ab\u0080\u00a1\u2007\u200b"))))
def test_exact_hash_is_that_of_the_folded_text(text: str) -> None:
    folded = " ".join(unicodedata.normalize("NFC", text).split())
    assert exact_hash(text) == hashlib.sha256(folded.encode("utf-8", "surrogatepass")).digest()


def test_exact_hash_takes_lone_surrogates() -> None:
    assert len(exact_hash("\ud800")) == 32
    assert len(word_hashes("a\ud800b")) == 2
