"""One page's bytes to its main text: runs inside the killable worker. Pure: equal bytes, equal result."""

from __future__ import annotations

import logging
import re
from typing import Any, NamedTuple

from lxml import etree
from trafilatura.core import bare_extraction
from trafilatura.settings import Extractor
from trafilatura.utils import load_html

from dataeng.extract.charset import decode
from dataeng.extract.tidy import one_line, tidy

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
    engine: str = "trafilatura"


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
_MOST_ATTRIBUTES = 500  # of one element: libxml2 compares each with all before it
_TAG = re.compile(r"<[a-zA-Z/!]")
_OPTIONS = Extractor(output_format="python", comments=False, tables=True, formatting=False, with_metadata=False)
_SELECTORS: dict[str, tuple[etree.XPath, ...]] = {
    "title": (
        etree.XPath("//meta[@property='og:title']/@content"),
        etree.XPath("//head/title//text()"),
        etree.XPath("//h1[1]//text()"),
    ),
    "author": (
        etree.XPath(
            "//meta[@name='author' or @name='Author' or @property='article:author' or @name='dc.creator']/@content"
        ),
        etree.XPath("//a[@rel='author'][1]//text()"),
    ),
    "date": (
        etree.XPath("//meta[@property='article:published_time' or @name='date' or @itemprop='datePublished']/@content"),
        etree.XPath("//time[@datetime][1]/@datetime"),
    ),
    "licence": (etree.XPath("//*[self::a or self::link][@rel='license']/@href"),),
    "declared_language": (
        etree.XPath("/html/@lang | /html/@*[local-name()='lang']"),
        etree.XPath("//meta[translate(@http-equiv, 'CONTEL', 'contel')='content-language']/@content"),
    ),
}


def metadata_of(tree: Node) -> dict[str, str]:
    """Title, author, date, licence and declared language where a page states them."""
    found = {}
    for name, paths in _SELECTORS.items():
        for path in paths:
            values = path(tree)
            text = one_line("".join(values) if name == "title" else next(iter(values), ""))
            if text:
                found[name] = text
                break
    return found


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


def _trafilatura(tree: Node, _text: str) -> tuple[str, str]:
    document = bare_extraction(tree, options=_OPTIONS)
    return (getattr(document, "text", None) or "") if document is not None else "", "trafilatura"


def _resiliparse(_tree: Node, text: str) -> tuple[str, str]:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(text, main_content=True, alt_texts=False), "resiliparse"


_ENGINES = {"trafilatura": _trafilatura, "resiliparse": _resiliparse}


def _attributes(text: str) -> int:
    """About how many attributes the start tag with the most of them has."""
    long = (tag[0] for tag in _START_TAG.finditer(text) if tag.end() - tag.start() > 2 * _MOST_ATTRIBUTES)
    return max((len(_QUOTED.sub("= ", tag).split()) - 1 for tag in long), default=0)


def _too_large(what: str, score: float, most: int) -> Page:
    return Page(None, {"too_large": what}, "too_large", score, most, "max")


def _from_html(task: Task, text: str, codec: str) -> Page:
    tags = sum(1 for _ in _TAG.finditer(text))
    if tags > 2 * task.nodes:  # an element has at most two tags: decided before anything is parsed
        return _too_large("elements", tags // 2, task.nodes)
    if (attributes := _attributes(text)) > _MOST_ATTRIBUTES:
        return _too_large("attributes", attributes, _MOST_ATTRIBUTES)
    try:
        tree = load_html(text)
    except (etree.LxmlError, ValueError):
        tree = None
    if tree is None:
        return Page(None, {}, "empty", 0, task.minimum_characters, "min")
    if (nodes := _nodes(tree)) > task.nodes:
        return _too_large("elements", nodes, task.nodes)
    if _deeper_than(tree, task.depth):
        return Page(None, {}, "too_deep", None, task.depth, "max")
    metadata = metadata_of(tree)
    found, path = _ENGINES[task.engine](tree, text)
    return Page(tidy(found), metadata | {"extract_path": path, "charset": codec})


def work(task: Task) -> Page:
    """The page's main text with its metadata, or why there is none."""
    text, codec = decode(task.body, task.content_type)
    if task.content_type.lower().startswith("text/plain"):
        page = Page(tidy(text), {"extract_path": "plain", "charset": codec})
    else:
        page = _from_html(task, text, codec)
    if page.rule is None and len(page.text or "") < task.minimum_characters:
        return Page(page.text, page.metadata, "empty", len(page.text or ""), task.minimum_characters, "min")
    return page
