"""Each switch alone, together, and by language."""

from __future__ import annotations

import pytest
import snowballstemmer

from dataeng.document import Document
from dataeng.filter.normalize import STEMMERS, Config, transform
from dataeng.recipe import KeyProblem, build

TEXT = "The Cats' 1,234 running\n\n  don't STOP: 3.5%!\n"


def normal(text, language="en", **config):
    return transform(Document("x", text, language=language), Config(**config)).text


SWITCHES = [
    ({}, TEXT),
    ({"lower_case": True}, "the cats' 1,234 running\n\n  don't stop: 3.5%!\n"),
    ({"numbers": "zero"}, "The Cats' 0 running\n\n  don't STOP: 0%!\n"),
    ({"numbers": "remove"}, "The Cats' running\n\ndon't STOP: %!\n"),
    ({"punctuation": True}, "The Cats 1 234 running\n\ndon't STOP 3 5\n"),
    ({"stop_words": True}, "Cats' 1,234 running\n\ndon't STOP: 3.5%!\n"),
    ({"stem": True}, "the cat' 1,234 run\n\n  don't stop: 3.5%!\n"),
    ({"lower_case": True, "numbers": "zero", "punctuation": True, "stop_words": True, "stem": True},
     "cat 0 run\n\ndon't stop 0\n"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), SWITCHES, ids=["+".join(s[0]) or "none" for s in SWITCHES])
def test_switches(config, expected):
    assert normal(TEXT, **config) == expected


def test_stop_words_that_went_are_counted():
    document = transform(Document("x", "The end of the day", language="en"), Config(stop_words=True))
    assert (document.text, document.scores) == ("end day", {"normalize.stop_words": 3})
    assert transform(Document("x", "The end", language="en"), Config()).scores == {}


def test_words_are_those_of_the_language():
    assert normal("Die Häuser und Katzen", "de", stem=True) == "die haus und katz"
    assert normal("Die Häuser und Katzen", "de", stop_words=True) == "Häuser Katzen"
    assert normal("Кошки бегали", "ru", stem=True) == "кошк бега"
    for language in (None, "zh", "xx"):
        assert normal("The Cats running", language, stem=True, stop_words=True) == "The Cats running"


def test_own_stop_words():
    assert normal("Na ya paka", "sw", stop_words=True, stop_word_lists={"sw": ["NA", "ya"]}) == "paka"


def test_apostrophes_signs_and_other_scripts():
    assert normal("l’été ‘quoted’ — $5 «x»", punctuation=True) == "l’été quoted 5 x"
    assert normal("你好，世界。", "zh", punctuation=True) == "你好 世界"
    assert normal("١٢٣٫٥ and 42", numbers="zero") == "0 and 0"
    assert normal("ÀÉ ẞ", lower_case=True) == "àé ß"


def test_every_stemmer_is_there():
    assert set(STEMMERS.values()) <= set(snowballstemmer.algorithms())


@pytest.mark.parametrize("text", [None, ""])
def test_no_text_stays_none(text):
    assert transform(Document("x", text), Config(lower_case=True, stem=True)).text == text


@pytest.mark.parametrize("values", [{"numbers": "none"}, {"stem": "english"}, {"lowercase": True}])
def test_mistakes_are_named(values):
    with pytest.raises(KeyProblem, match=rf"normalize\.{next(iter(values))}"):
        build(Config, "normalize", values)
