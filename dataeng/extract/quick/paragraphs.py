"""jusText's decision by paragraphs, as trafilatura uses it: the same classes, without objects for every text node."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

from justext.core import PARAGRAPH_TAGS
from justext.utils import get_stoplist, get_stoplists, normalize_whitespace
from lxml import etree

Node = Any  # an lxml element
_SHORT, _LONG, _FEW_STOPWORDS, _MANY_STOPWORDS, _MOST_LINKS = 50, 150, 0.1, 0.2, 0.25  # trafilatura's settings
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_stopwords: frozenset[str] = frozenset()


def _all_stopwords() -> frozenset[str]:
    global _stopwords
    if not _stopwords:
        _stopwords = frozenset(word.lower() for name in get_stoplists() for word in get_stoplist(name))
    return _stopwords


class _Collector:
    """Text between block elements: (text, characters in links, whether inside a ``select``)."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int, bool]] = []
        self.pieces: list[str] = []
        self.linked, self.choices = 0, 0
        self.link = self.after_break = self.choice = False

    def cut(self) -> None:
        """End the paragraph, and begin another at this place."""
        if self.pieces:
            text = normalize_whitespace("".join(self.pieces).strip())
            if text:
                self.found.append((text, self.linked, self.choice))
            self.pieces, self.linked = [], 0
        self.choice = self.choices > 0

    def text(self, text: str | None) -> None:
        """Text between two tags."""
        if text and not text.isspace():
            text = normalize_whitespace(text)
            self.pieces.append(text)
            if self.link:
                self.linked += len(text)
            self.after_break = False

    def start(self, tag: str) -> None:
        """A start tag."""
        self.choices += "select" in tag
        if tag in PARAGRAPH_TAGS or (tag == "br" and self.after_break):
            self.cut()
            return
        self.after_break = tag == "br"
        if tag == "br":
            self.pieces.append(" ")
        elif tag == "a":
            self.link = True

    def end(self, tag: str) -> None:
        """An end tag."""
        self.choices -= "select" in tag
        if tag in PARAGRAPH_TAGS:
            self.cut()
        elif tag == "a":
            self.link = False


def _collected(tree: Node) -> list[tuple[str, int, bool]]:
    collector = _Collector()
    for event, node in etree.iterwalk(tree, events=("start", "end")):
        if event == "start":
            collector.start(node.tag)
            collector.text(node.text)
        else:
            collector.end(node.tag)
            collector.text(node.tail)
    collector.cut()
    return collector.found


def _class_of(text: str, linked: int, choice: bool, stopwords: frozenset[str]) -> str:
    """The class of a paragraph by itself."""
    length = len(text)
    if (length and linked / length > _MOST_LINKS) or "\xa9" in text or "&copy" in text or choice:
        return "bad"
    if length < _SHORT:
        return "bad" if linked else "short"
    words = text.lower().split()
    density = sum(word in stopwords for word in words) / len(words) if words else 0
    if density >= _MANY_STOPWORDS:
        return "good" if length > _LONG else "neargood"
    return "neargood" if density >= _FEW_STOPWORDS else "bad"


def _nearest(classes: list[str], wanted: tuple[str, ...]) -> list[str]:
    """For each place the last class before it that is one of ``wanted``; "bad" where there is none."""
    return list(accumulate(classes, lambda last, one: one if one in wanted else last, initial="bad"))[:-1]


def _settled(classes: list[str]) -> list[str]:
    """Every class as "good" or "bad", by the classes around it."""
    firm, soft = ("good", "bad"), ("good", "bad", "neargood")
    before, after = _nearest(classes, firm), _nearest(classes[::-1], firm)[::-1]
    soft_before, soft_after = _nearest(classes, soft), _nearest(classes[::-1], soft)[::-1]
    settled = list(classes)
    for i, one in enumerate(classes):
        if one == "short":
            good = before[i] == after[i] == "good"
            near = before[i] != after[i] and "neargood" in (
                soft_before[i] if before[i] == "bad" else "",
                soft_after[i] if after[i] == "bad" else "",
            )
            settled[i] = "good" if good or near else "bad"
    after, last = _nearest(settled[::-1], firm)[::-1], "bad"
    for i, one in enumerate(settled):
        if one == "neargood":
            settled[i] = "bad" if last == after[i] == "bad" else "good"
        last = settled[i]
    return settled


def good_paragraphs(tree: Node) -> Node:
    """A body with a ``p`` for each paragraph of the tree that reads as text."""
    found, stopwords = _collected(tree), _all_stopwords()
    classes = _settled([_class_of(*paragraph, stopwords) for paragraph in found])
    body = etree.Element("body")
    for (text, _, _), one in zip(found, classes, strict=True):
        if one == "good":
            etree.SubElement(body, "p").text = _NOT_XML.sub("", text)
    return body
