"""Mojibake is undone where it is certain, and sound text is left as it is."""

from __future__ import annotations

import pytest

from dataeng.extract.page import Task, work
from dataeng.extract.repair import repaired

SOUND = [
    "Plain ASCII, with \u201cquotes\u201d, \u2013 dashes \u2026 and \u20ac 5",
    "Übergrößenträger, façade, naïve, Ångström, señor, žluťoučký kůň",
    "Ω ≈ 3 µm ± 2 °C; ½ × ¼ = ⅛; Â is a letter, and so is Ã",
    "日本語の文章です。한국어 문장입니다. العربية עברית ไทย",
    "Русский текст — «кавычки», українська мова",
    "C’est l’été à Orléans… n°5",
]


@pytest.mark.parametrize("text", SOUND)
def test_sound_text_stays(text):
    assert repaired(text) == (text, 0)
    assert repaired("\n".join(SOUND)) == ("\n".join(SOUND), 0)


@pytest.mark.parametrize("text", [SOUND[0], SOUND[1], SOUND[4], SOUND[5]])
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
def test_text_read_with_the_wrong_encoding_is_repaired(text, wrong):
    mojibake = "".join(
        bytes([byte]).decode(wrong, "replace")
        if wrong == "latin-1" or byte not in b"\x81\x8d\x8f\x90\x9d"
        else chr(byte)
        for byte in text.encode()
    )
    assert repaired(mojibake) == (text, 1)
    assert repaired(f"Sound é line\n{mojibake}\n{text}") == (f"Sound é line\n{text}\n{text}", 1)


def test_a_page_says_how_many_lines_were_repaired():
    prose = "La façade de l’hôtel a été rénovée à l’été dernier, et les visiteurs s’en réjouissent. " * 3
    html = f"<!doctype html><html><body><article><p>{prose.encode().decode('cp1252')}</p><p>{prose}</p></article>"
    found = work(Task(html.encode(), "text/html; charset=utf-8", 60_000, 250, 25))
    assert found.text.count(prose.strip()) == 2
    assert found.metadata["repaired_lines"] == "1"
