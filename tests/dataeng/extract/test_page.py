"""Pages become text with metadata, or are refused by fixed caps before any clock."""

from __future__ import annotations

import time
import unicodedata

import pytest

from dataeng.extract import Config
from dataeng.extract.page import Task, work
from dataeng.extract.tidy import one_line, tidy

PROSE = "This paragraph says something that a reader would want to keep, and says it at some length. "


def task(html: str, **more) -> Task:
    config = Config(input=["x"])
    values = {"nodes": config.nodes, "depth": config.depth, "minimum_characters": config.minimum_characters}
    return Task(html.encode(), "text/html; charset=utf-8", **values | more)


def page(body: str, head: str = "") -> str:
    return f'<!doctype html><html lang="en-GB"><head>{head}</head><body>{body}</body></html>'


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_main_text_is_kept_and_navigation_is_not(engine):
    menu = "<nav><ul>" + "".join(f'<li><a href="/{n}">Section {n}</a></li>' for n in range(30)) + "</ul></nav>"
    found = work(task(page(f"{menu}<main><article><h1>Mills</h1><p>{PROSE * 3}</p></article></main>"), engine=engine))
    assert found.rule is None
    assert PROSE.strip() in found.text
    assert "Section 7" not in found.text
    assert found.metadata["extract_path"] == engine


def test_metadata_is_what_the_page_states():
    head = (
        "<title>A  title\n of two lines</title><meta name='author' content='Jane Roe'>"
        "<meta property='article:published_time' content='2026-01-02'>"
    )
    found = work(task(page(f"<p>{PROSE * 3}</p><a rel='license' href='https://example.org/by'>licence</a>", head)))
    expected = {
        "title": "A title of two lines",
        "author": "Jane Roe",
        "date": "2026-01-02",
        "licence": "https://example.org/by",
        "declared_language": "en-GB",
    }
    assert expected.items() <= found.metadata.items()


def test_code_keeps_its_indentation():
    code = "def f(x):\n    if x:\n        return 1\n    return 2"
    found = work(
        task(page(f"<article><h1>Code</h1><p>{PROSE * 3}</p><pre><code>{code}</code></pre><p>{PROSE}</p></article>"))
    )
    assert code in found.text


@pytest.mark.parametrize(("depth", "rule"), [(200, None), (255, "too_deep"), (40_000, "too_deep")])
def test_nesting_is_bounded(depth, rule):
    found = work(task("<html><body>" + "<div>" * depth + PROSE * 3 + "</div>" * depth + "</body></html>"))
    assert found.rule == rule


@pytest.mark.parametrize(("count", "rule"), [(500, None), (70_000, "too_large"), (1_000_000, "too_large")])
def test_elements_are_bounded(count, rule):
    found = work(task(page(f"<p>{PROSE}</p>" + "<p>x" * count)))
    assert found.rule == rule


@pytest.mark.parametrize("body", ["", " ", "<html></html>", "<p>short</p>", "<!-- -->", "<", "\0\0", "<html/>"])
def test_pages_without_text_are_empty(body):
    found = work(task(body))
    assert (found.rule, found.threshold, found.bound) == ("empty", 25, "min")
    assert found.score < 25


def test_equal_bytes_give_equal_results():
    tasks = [task(page(f"<article><p>{PROSE * n}</p></article>", f"<title>{n}</title>")) for n in (1, 5, 20)]
    assert [work(t) for t in tasks] == [work(t) for t in reversed(tasks)][::-1]


HARD = {
    "colspan": page('<table><tr><td colspan="9000000000000000">cell</td></tr></table>' + f"<p>{PROSE}</p>"),
    "unclosed": "<html><body><p>start " + '<b><i><a href="' * 30_000,
    "entities": page("<p>" + "&amp;" * 400_000),
    "attributes": page("<div " + " ".join(f"a{n}=1" for n in range(100_000)) + f">{PROSE}</div>"),
    "one long word": page("<p>" + "x" * 4_000_000),
    "tables in tables": page("<table><tr><td>" * 60 + PROSE),
    "many scripts": page("<script>var a='<p>';</script>" * 9000 + f"<p>{PROSE}</p>"),
    "many short lines": page(f"<p>{PROSE}</p>" + "<br>x" * 25_000),
    "lists": page("<ul>" + "<li><a href=x>link</a> text" * 15_000),
    "spaces": page("<p>a" + " " * 4_000_000 + "b"),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_pages_cost_less_than_a_tenth_of_the_clock(name):
    started = time.process_time()
    work(task(HARD[name]))
    assert time.process_time() - started < Config(input=["x"]).cpu_seconds / 10


def test_tidy():
    assert tidy("a\r\nb\rc\u2028d  \n\n\n\n  e\u00a0f\x00\u200b\ufeff\ud800") == "a\nb\nc\nd\n\n  e f"
    assert tidy("e\u0301") == "\u00e9"
    assert one_line(" a \n b ") == "a b"
    assert tidy(tidy("x\u0301 \x1f y\n\n\n")) == tidy("x\u0301 \x1f y\n\n\n")
    assert tidy("a \t\n b\t c \t") == "a\n b\t c"


def test_marks_without_end_on_a_letter_are_cut():
    some, many = "a" + "\u0327\u0301" * 15, "a" + "\u0301\u0327" * 500_000
    assert tidy(some) == unicodedata.normalize("NFC", some)
    assert tidy(many + "b") == unicodedata.normalize("NFC", many[:31]) + "b"  # put in order, all would take a day
    assert tidy("…" * 50 + "≠" * 50) == "…" * 50 + "≠" * 50


def test_long_runs_of_spaces_are_read_once():
    text = "a" + " " * 2_000_000 + "b"
    assert tidy(text + " ") == text  # tried from each space anew, this would not come back
