"""What is page furniture and what is prose, and that only whole lines go."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.document import Document
from dataeng.filter import Config as Filter
from dataeng.filter import apply
from dataeng.filter.lines import Config, transform
from dataeng.recipe import KeyProblem, build

GONE = {
    "crumbs": [
        "Home » Docs » Installation",
        "Home > Books > Novels",
        "Startseite › Handbuch › Installation",
        "Home | About us | Contact",
        "Prev | Up | Next",
        "« Previous   Home   Next »",
        "Next Prev",
        "Skip to main content",
        "↑ Back to top",
        "Jump to navigation, search",
    ],
    "cookies": [
        "We use cookies to give you the best experience on our website.",
        "This website uses cookies.",
        "By continuing to browse you agree to our use of cookies",
        "Accept all cookies",
        "• Cookie Policy",
        "Diese Website verwendet Cookies, um Ihnen zu helfen.",
        "Ce site utilise des cookies pour améliorer votre expérience.",
        "Utilizamos cookies propias y de terceros",
    ],
    "share": [
        "Share on Facebook",
        "Share this: Twitter Facebook Reddit",
        "Facebook Twitter Instagram",
        "• Follow us on Twitter",
        "Click to share on LinkedIn (Opens in new window)",
        "Tweet | Share | Email",
        "Teilen auf WhatsApp",
    ],
    "javascript": [
        "Please enable JavaScript to view the comments powered by Disqus.",
        "You need to enable JavaScript to run this app.",
        "JavaScript is disabled in your browser.",
        "This site requires JavaScript to work.",
        "Your browser does not support JavaScript!",
        "Bitte aktivieren Sie JavaScript in Ihrem Browser.",
    ],
}
STAYS = [
    "Home",
    "Contents",
    "Index",
    "Next",
    "Next we install the package.",
    "cat a > b > c",
    "Home is where the heart is > always",
    "a | b | c",
    "| Home | About | Contact |",
    "$ home | up | next",
    "Il dit « bonjour » puis « au revoir »",
    "Cookies are small files that a browser keeps.",
    "The server sets two cookies and the client sends them back.",
    "Bake the cookies for ten minutes.",
    "cookies",
    "Share the file with others on the network.",
    "Share",
    "print(x)",
    "like Facebook and its friends, the company grew",
    "He shared it with me.",
    "X",
    "JavaScript is a programming language.",
    "To enable JavaScript actions, set the option below in the form's dialog.",
    "Facebook was founded in 2004.",
    "We use cookies " + "and long explanations of them " * 8,
]


@pytest.mark.parametrize(("kind", "line"), [(kind, line) for kind, lines in GONE.items() for line in lines])
def test_furniture_goes_whatever_its_case(kind, line):
    for text in (line, line.upper(), f"  {line}\t"):
        document = transform(Document("x", f"Before.\n\n{text}\nAfter."), Config())
        assert document.text == "Before.\n\nAfter."
        assert document.scores == {f"lines.{one}": float(one == kind) for one in GONE}


@pytest.mark.parametrize("line", STAYS)
def test_prose_and_headings_stay(line):
    document = transform(Document("x", line), Config())
    assert document.text == line
    assert set(document.scores.values()) == {0.0}


def test_kinds_lengths_and_patterns_can_be_chosen():
    text = "Skip to content\nShare on Facebook\nChapter 1 of 9\nText."
    assert transform(Document("x", text), Config(kinds=["share"])).text == "Skip to content\nChapter 1 of 9\nText."
    assert transform(Document("x", text), Config(characters_max=10)).text == text
    document = transform(Document("x", text), Config(kinds=[], patterns=[r"chapter \d+ of \d+"]))
    assert document.text == "Skip to content\nShare on Facebook\nText."
    assert document.scores == {"lines.own": 1.0}


def test_it_never_drops():
    row = apply(Document("x", "Skip to content"), Filter(rules=["lines"]))
    assert (row["table"], row["text"], row["scores"]["lines.crumbs"]) == ("kept", "", 1.0)
    assert transform(Document("x", None), Config()).text is None


@pytest.mark.parametrize(
    ("values", "says"), [({"patterns": ["("]}, "no regular expression"), ({"kinds": ["ads"]}, "kinds.0")]
)
def test_mistakes_are_named(values, says):
    with pytest.raises(KeyProblem, match=says):
        build(Config, "lines", values)


@given(
    st.lists(
        st.sampled_from(["", "Prose.", "İ is longer in lower case", "Skip to content", "x9", " Share on Facebook "])
    )
)
def test_the_lines_that_stay_are_untouched_and_in_order(lines):
    text = "\n".join(lines)
    for patterns, goes in (([], ("Skip", " Share")), (["x[0-9]"], ("Skip", " Share", "x9"))):
        document = transform(Document("x", text), Config(patterns=patterns))
        assert document.text == "\n".join(line for line in lines if not line.startswith(goes))
        assert sum(document.scores.values()) == sum(line.startswith(goes) for line in lines)


HOSTILE = ["pin it " * 28 + "?z", "please enable " * 14 + "java", "next page " * 19 + "x", "» " * 99, "a" * 10**6,
           "share, " * 28 + "(", "cookies " * 24, "we use cookies", "Share " * 30 + "\n" * 10**5]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE, ids=[line[:8] for line in HOSTILE])
def test_hostile_lines_end(line):
    assert transform(Document("x", f"javascript cookie share next » |\n{line}"), Config()).text is not None


def test_books_lose_nothing_to_speak_of(data_dir):
    with gzip.open(data_dir / "books" / "books.jsonl.gz", "rt", encoding="utf-8") as rows:
        texts = [json.loads(row)["text"] for row, _ in zip(rows, range(6), strict=False)]
    lines = sum(len(text.split("\n")) for text in texts)
    gone = sum(sum(transform(Document("x", text), Config()).scores.values()) for text in texts)
    assert lines > 5000
    assert gone <= lines / 1000
