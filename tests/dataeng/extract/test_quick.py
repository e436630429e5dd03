"""Engine quick gives the text that plain trafilatura gives, and its parts decide as the parts that they replace."""

from __future__ import annotations

import base64
import gzip
import json
import unicodedata
from copy import copy

import pytest
import trafilatura
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from trafilatura import external, htmlprocessing, xpaths
from trafilatura.settings import BASIC_CLEAN_XPATH, Extractor

from dataeng.extract import quick
from dataeng.extract.charset import decode
from dataeng.extract.quick import body, paragraphs, tree
from dataeng.extract.quick.verdicts import Verdicts

PROSE = "This paragraph says something that a reader would want to keep, and it is said at some length here. "
OPTIONS = Extractor(output_format="python", comments=False, tables=True, formatting=False)
MENU = "<nav><ul>" + "".join(f"<li><a href='/{n}'>Section {n}</a></li>" for n in range(20)) + "</ul></nav>"
BODIES = {
    "article": f"<article><h1>Mills</h1><p>{PROSE * 3}</p><p>{PROSE}</p></article>",
    "menu and share": f"{MENU}<div class='content'><p>{PROSE * 4}</p><p>{PROSE}</p>"
    "<div class='share-bar'>Tweet</div></div>",
    "no frame": f"<div><p>{PROSE * 3}</p><p>{PROSE * 2}</p></div>",
    "short": "<div><p>Only a few words stand here.</p></div>",
    "comments": f"<div id='main'><p>{PROSE * 4}</p></div><div id='comments'><p>{PROSE * 2}</p></div>",
    "nested asides": f"<aside><aside>{PROSE}</aside></aside><aside>{PROSE}</aside>"
    f"<article><p>{PROSE * 4}</p></article>",
    "form around all": f"<form id='aspnet'><div id='content'><p>{PROSE * 4}</p><p>{PROSE}</p></div></form>",
    "lists and tables": f"<article><p>{PROSE * 3}</p><ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>"
    "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></article>",
    "code": f"<article><p>{PROSE * 3}</p><pre><code>def f(x):\n    return x</code></pre></article>",
    "link farm": f"<article><p>{PROSE * 3}</p></article><div class='story'>"
    + "".join(f"<p><a href='/{n}'>{PROSE}</a></p>" for n in range(9))
    + "</div>",
    "other text elsewhere": f"<article><p>Short.</p><p>{PROSE}</p></article><div class='x'>"
    + f"<p>{PROSE * 3}, and more, and more.</p>" * 9
    + "</div>",
    "embedded article": "<div><p>Short.</p></div><script type='application/ld+json'>"
    + json.dumps({"@type": "Article", "articleBody": PROSE * 5})
    + "</script>",
    "raised": f"<article><p>{PROSE * 3}<sup></sup> E = mc<sup>2</sup><br>next line</p><p>{PROSE}</p></article>",
}


def page(inside: str) -> str:
    return f"<!doctype html><html><head><title>Mills</title></head><body>{inside}</body></html>"


def found(html: str) -> str:
    return unicodedata.normalize("NFC", quick.extract(quick.load(html), html)[0]).strip()


def expected(html: str) -> str:
    return (trafilatura.extract(html, include_comments=False) or "").strip()


@pytest.mark.parametrize("name", BODIES)
def test_pages_read_as_by_trafilatura(name):
    html = page(BODIES[name])
    assert found(html) == expected(html)


def test_a_text_that_is_found_at_all_is_more_than_nothing():
    assert sum(PROSE.strip() in found(page(html)) for html in BODIES.values()) >= 11


def test_every_article_page_reads_as_by_trafilatura(data_dir):
    differ, paths = [], set()
    with gzip.open(data_dir / "extraction/snippets.jsonl.gz", "rt", encoding="utf-8") as lines:
        for item in map(json.loads, lines):
            html = decode(base64.b64decode(item["html_base64"]))[0]
            text, path = quick.extract(quick.load(html), html)
            paths.add(path)
            if unicodedata.normalize("NFC", text).strip() != expected(html):
                differ.append(item["url"])
    assert not differ
    assert paths >= {"own", "readability", "justext", "recall", "recall-justext"}


def test_equal_pages_give_equal_text_whatever_came_before():
    pages = [page(html) for html in BODIES.values()]
    quick.forget()
    first = [found(html) for html in pages]
    assert [found(html) for html in reversed(pages)] == first[::-1]
    quick.forget()
    assert [found(html) for html in reversed(pages)] == first[::-1]


NAMES = st.sampled_from(
    ["div", "p", "section", "span", "article", "main", "ul", "ol", "aside", "footer", "h1", "form", "a", "table", "td"]
)
WORDS = ["post", "content", "share-bar", "comments", "nav", "sidebar", "article-body", "Teaser", "caption", "entry"]
WORDS += ["cookie-banner", "infinite-scroll", "main", "footer", "x", "hidden", " ad ", "reply-1", "mvp-post-add-box"]
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["class", "id", "style", "role", "aria-hidden", "itemprop", "href"]),
    st.lists(st.sampled_from([*WORDS, "display:none", "true", "navigation", "articleBody"]), max_size=2).map(" ".join),
    max_size=3,
)
TREES = st.recursive(
    st.tuples(NAMES, ATTRIBUTES, st.just([])),
    lambda inner: st.tuples(NAMES, ATTRIBUTES, st.lists(inner, max_size=4)),
    max_leaves=25,
)


def build(shape, top):
    name, attributes, inner = shape
    node = etree.SubElement(top, name, attributes)
    for part in inner:
        build(part, node)


@pytest.mark.parametrize("rule", [*xpaths.OVERALL_DISCARD_XPATH, *xpaths.TEASER_DISCARD_XPATH, BASIC_CLEAN_XPATH])
@settings(deadline=None, max_examples=60)
@given(shape=TREES)
def test_verdicts_select_what_the_rule_selects(rule, shape):
    top = etree.Element("body")
    build(shape, top)
    assert list(Verdicts([rule]).select(top)) == rule(top)


@settings(deadline=None, max_examples=100)
@given(shape=TREES)
def test_the_first_frame_is_that_of_each_expression(shape):
    top = etree.Element("html")
    build(shape, top)
    verdicts = body.BODIES.select(top)
    for number, rule in enumerate(xpaths.BODY_XPATH):
        first = next((node for node, verdict in verdicts.items() if verdict >> number & 1), None)
        assert first is next(iter(rule(top)), None)


@pytest.mark.parametrize("name", BODIES)
def test_cleaning_and_conversion_are_trafilaturas(name):
    raw = quick.load(page(BODIES[name]))
    cleaned = htmlprocessing.tree_cleaning(copy(raw), OPTIONS)
    assert etree.tostring(tree.clean(copy(raw), OPTIONS)) == etree.tostring(cleaned)
    converted = htmlprocessing.convert_tags(copy(cleaned), OPTIONS)
    assert etree.tostring(tree.convert(copy(cleaned))) == etree.tostring(converted)


PIECES = [
    *(f"<p>{text}</p>" for text in ("short", PROSE, PROSE * 2, f"<a href='/'>{PROSE}</a>", "xyzzy " * 30)),
    "<br>",
    "<br><br>",
    f"<h2>{PROSE[:30]}</h2>",
    "<p>\xa9 Mills 2026 and all those who worked at them for years</p>",
    "loose words ",
    "<ul><li>one</li><li>two</li></ul>",
    "<div> </div>",
    "<a href='/'>link</a>",
]


@settings(deadline=None, max_examples=100)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=14))
def test_paragraphs_are_classed_as_by_justext(pieces):
    raw = quick.load(page("".join(pieces)))
    theirs = [node.text for node in external.try_justext(copy(raw), None, None)]
    assert [node.text for node in paragraphs.good_paragraphs(raw)] == theirs


@settings(deadline=None, max_examples=150)
@given(pieces=st.lists(st.sampled_from([*PIECES, *BODIES.values()]), min_size=1, max_size=5))
def test_mixed_pages_read_as_by_trafilatura(pieces):
    html = page("".join(pieces))
    assert found(html) == expected(html)
