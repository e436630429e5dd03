"""Bytes become the text that their author wrote."""

from __future__ import annotations

import pytest

from dataeng.extract.charset import codec_of, decode

SAMPLES = {
    "koi8-r": "Добро пожаловать в Debian! Это руководство по установке системы.",
    "windows-1251": "Добро пожаловать в Debian! Это руководство по установке системы.",
    "shift_jis": "ようこそ Debian へ。この文書はインストールの手引きです。",
    "euc-jp": "ようこそ Debian へ。この文書はインストールの手引きです。",
    "iso-2022-jp": "ようこそ Debian へ。この文書はインストールの手引きです。",
    "gb18030": "欢迎使用 Debian。本文档是安装手册。",
    "big5": "歡迎使用 Debian。本文件是安裝手冊。",
    "euc-kr": "데비안에 오신 것을 환영합니다. 이 문서는 설치 안내서입니다.",
    "iso-8859-7": "Καλώς ήλθατε στο Debian. Αυτός είναι ο οδηγός εγκατάστασης.",
    "iso-8859-1": "Bienvenue à Debian. Déjà vu, où êtes-vous ?",
    "windows-1252": "Willkommen – “Größe” kostet 5 €",
    "utf-8": "Größe, ようこそ, Добро",
}


@pytest.mark.parametrize(("label", "text"), SAMPLES.items())
def test_declared_by_header_or_page(label, text):
    page = f'<html><head><meta charset="{label}"><title>t</title></head><body>{text}</body></html>'
    bare = f"<html><body>{text}</body></html>"
    assert text in decode(page.encode(label), "text/html")[0]
    assert text in decode(bare.encode(label), f"text/html; charset={label}")[0]
    assert text in decode(page.encode(label), "text/html; charset=utf-8")[0]


@pytest.mark.parametrize("label", ["koi8-r", "shift_jis", "euc-jp", "gb18030", "euc-kr", "windows-1251", "utf-8"])
def test_detected_without_declaration(label):
    text = SAMPLES[label] * 20
    assert decode(f"<html><body>{text}</body></html>".encode(label), "text/html")[0].count(SAMPLES[label]) == 20


def test_valid_utf8_beats_a_one_byte_default():
    assert decode("Größe".encode(), "text/html; charset=iso-8859-1") == ("Größe", "utf-8")


def test_byte_order_marks_win():
    for codec in ("utf-16", "utf-8-sig"):
        assert decode("Größe".encode(codec), "text/html; charset=koi8-r")[0] == "Größe"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xfe\xff\xd8", bytes(range(256)), b"<meta charset=hex>\xe9"])
def test_never_raises(body):
    for content_type in ("", "text/html; charset=utf-8", "text/html; charset=nonsense", "text/html; charset=zlib"):
        assert isinstance(decode(body, content_type)[0], str)


@pytest.mark.parametrize("label", ["hex", "zip", "rot13", "idna", "nonsense", "", None, "x" * 999])
def test_what_is_no_charset_is_none(label):
    assert codec_of(label) is None
