"""What pages state about themselves."""

from __future__ import annotations

import pytest

from dataeng.extract.metadata import licence_name, metadata_of
from dataeng.extract.quick.tree import load


def stated(head: str = "", body: str = "") -> dict[str, str]:
    html = f'<!doctype html><html lang="en-GB"><head>{head}</head><body><p>Text</p>{body}</body></html>'
    return metadata_of(load(html), html)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://creativecommons.org/licenses/by-sa/4.0/", "cc-by-sa-4.0"),
        ("http://creativecommons.org/licenses/by/3.0/de/deed.en", "cc-by-3.0-de"),
        ("//www.creativecommons.org/licenses/by-nc-nd/2.5", "cc-by-nc-nd-2.5"),
        ("https://creativecommons.org/licenses/by/4.0/legalcode", "cc-by-4.0"),
        ("https://creativecommons.org/licenses/by/3.0/igo/", "cc-by-3.0-igo"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "pdm-1.0"),
        ("https://creativecommons.org/about/", None),
        ("https://example.org/by-sa/4.0", None),
    ],
)
def test_licences_have_names(address, name):
    assert licence_name(address) == name


def test_a_declared_licence_goes_before_a_mere_link():
    link = "<a href='https://creativecommons.org/licenses/by/4.0/'>x</a>"
    own = "<a rel='nofollow license' href='https://creativecommons.org/licenses/by-nc/4.0/'>x</a>"
    assert stated(body=link)["licence"] == "cc-by-4.0"
    assert stated(body=link + own)["licence"] == "cc-by-nc-4.0"
    assert (
        stated(body=link + "<a rel='license' href='https://example.org/l'>x</a>")["licence"] == "https://example.org/l"
    )


def test_a_page_about_several_licences_states_none():
    links = [f"<a href='https://creativecommons.org/licenses/{kind}/4.0/'>x</a>" for kind in ("by", "by-sa")]
    assert "licence" not in stated(body="".join(links))


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("<title> A\n title </title>", "<h1>B</h1>", {"title": "A title"}),
        ("<meta property='og:title' content='C'><title>A</title>", "", {"title": "C"}),
        ("", "<h1>B <i>b</i></h1><h1>D</h1>", {"title": "B b"}),
        ("<meta name='Author' content='Jane Roe'>", "", {"author": "Jane Roe"}),
        ("", "<a rel='author' href='/'>Jane</a>", {"author": "Jane"}),
        ("<meta name='DC.Date' content='2026-01-02'>", "", {"date": "2026-01-02"}),
        ("", "<time datetime='2026-01-03'>x</time>", {"date": "2026-01-03"}),
        (
            '<script type="application/ld+json">{"datePublished": "2026-01-04T10:00Z"}</script>',
            "",
            {"date": "2026-01-04T10:00Z"},
        ),
        ("<meta name='author' content='  '>", "", {}),
    ],
)
def test_what_is_stated(head, body, expected):
    found = stated(head, body)
    assert expected.items() <= found.items()
    assert found.keys() == expected.keys() | {"declared_language"}
