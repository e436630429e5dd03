"""One page's bytes to its main text: runs inside the killable worker. Pure: equal bytes, equal result."""

from __future__ import annotations

import logging
import re
from math import isqrt
from typing import Any, NamedTuple

from lxml import etree

from dataeng.extract import guess
from dataeng.extract.charset import decode
from dataeng.extract.engines import agreement, engine_of, reference
from dataeng.extract.metadata import metadata_of
from dataeng.extract.quick.tree import load
from dataeng.extract.repair import repaired
from dataeng.extract.tidy import tidy
from dataeng.filter.language import load as load_model

for _name in ("trafilatura", "htmldate", "justext", "charset_normalizer", "courlan"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

Node = Any  # an lxml element


class Task(NamedTuple):
    """A page and the caps that decide before any clock does."""

    body: bytes
    content_type: str
    nodes: int
    depth: int
    minimum_characters: int
    engine: str = "quick"
    check: bool = False  # compare the text with plain trafilatura's
    url: str = ""  # for a user's engine only: others are given none
    languages: tuple[str, ...] = ()  # those wanted; none: all
    language_least: float = 0.0
    language_model: str = ""


class Page(NamedTuple):
    """What came of a page: text and metadata, or the rule that drops it with its score and threshold."""

    text: str | None
    metadata: dict[str, str]
    rule: str | None = None
    score: float | None = None
    threshold: float | None = None
    bound: str | None = None


# A start tag with its quoted values; possessive, so that its cost is linear whatever the page holds.
_START_TAG = re.compile(r"""<[a-zA-Z](?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')|=)*+""")
_QUOTED = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')""")
_LONG_TAG = 1000  # characters; shorter ones have too few attributes to cost much
_MOST_ATTRIBUTES = 5000  # as if of one element: libxml2 compares each with all before it
_TAG = re.compile(r"<[a-zA-Z/!]")


def _nodes(tree: Node) -> int:
    return int(tree.xpath("count(//*)"))


def _deeper_than(tree: Node, depth: int) -> bool:
    """Whether any element has ``depth`` ancestors; level by level in C, so cost follows the nodes."""
    level = [tree]
    step = etree.XPath("/".join(["*"] * 25))
    for _ in range(depth // 25):
        level = [node for top in level for node in step(top)]
        if not level:
            return False
    return bool(level)


def _attributes(text: str) -> int:
    """About how many attributes one start tag would have that costs as much as all long ones of the page."""
    long = (tag[0] for tag in _START_TAG.finditer(text) if tag.end() - tag.start() > _LONG_TAG)
    return isqrt(sum((len(_QUOTED.sub("= ", tag).split()) - 1) ** 2 for tag in long))


def _too_large(what: str, score: float, most: int) -> Page:
    return Page(None, {"too_large": what}, "too_large", score, most, "max")


def _from_html(task: Task, text: str, codec: str) -> Page:
    angles = text.count("<")
    if angles > 2 * task.nodes:  # an element has at most two tags: decided before anything is parsed
        tags = sum(1 for _ in _TAG.finditer(text))
        if tags > 2 * task.nodes:
            return _too_large("elements", tags // 2, task.nodes)
    if (attributes := _attributes(text)) > _MOST_ATTRIBUTES:
        return _too_large("attributes", attributes, _MOST_ATTRIBUTES)
    tree = load(text)
    if tree is None:
        return Page(None, {}, "empty", 0, task.minimum_characters, "min")
    if 2 * angles + 10 > task.nodes and (nodes := _nodes(tree)) > task.nodes:  # few elements need no tag of their own
        return _too_large("elements", nodes, task.nodes)
    if angles > task.depth // 2 and _deeper_than(tree, task.depth):
        return Page(None, {}, "too_deep", None, task.depth, "max")
    if task.languages:
        found = guess.wanted_probability(guess.visible_text(tree), task.languages, load_model(task.language_model))
        if found is not None and found < task.language_least:
            return Page(None, {}, guess.RULE, found, task.language_least, "min")
    return _extracted(task, tree, text, metadata_of(tree, text) | {"charset": codec})


def _clean(text: str, metadata: dict[str, str]) -> Page:
    """A page of repaired, tidied text."""
    text, lines = repaired(text)
    return Page(tidy(text), metadata | ({"repaired_lines": str(lines)} if lines else {}))


def _extracted(task: Task, tree: Node, text: str, metadata: dict[str, str]) -> Page:
    """The page's main text, by the engine asked for."""
    plain = reference(tree) if task.check and task.engine != "trafilatura" else None
    found, path = engine_of(task.engine)(tree, text, task.url)
    page = _clean(found, metadata | {"extract_path": path})
    if plain is not None:
        page.metadata["extract_agreement"] = f"{agreement(page.text or '', _clean(plain, {}).text or ''):.4f}"
    return page


def work(task: Task) -> Page:
    """The page's main text with its metadata, or why there is none."""
    text, codec = decode(task.body, task.content_type)
    if task.content_type.lower().startswith("text/plain"):
        page = _clean(text, {"extract_path": "plain", "charset": codec})
    else:
        page = _from_html(task, text, codec)
    if page.rule is None and len(page.text or "") < task.minimum_characters:
        return Page(page.text, page.metadata, "empty", len(page.text or ""), task.minimum_characters, "min")
    return page
