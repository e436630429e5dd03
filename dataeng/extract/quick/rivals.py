"""trafilatura's comparison with two general algorithms, run only as far as it can still change the result."""

from __future__ import annotations

from copy import copy

from lxml import etree
from trafilatura import external
from trafilatura.readability_lxml import FRAME_TAGS, REGEXES
from trafilatura.readability_lxml import Document as Readability
from trafilatura.settings import Extractor
from trafilatura.utils import fromstring_bytes, trim
from trafilatura.xml import delete_element

from dataeng.extract.quick.paragraphs import good_paragraphs
from dataeng.extract.quick.tree import clean, drop_extras, most_text
from dataeng.extract.quick.verdicts import Node

_NAMED = etree.XPath("descendant::*[@class or @id]")
_PARAGRAPH_TEXT = etree.XPath("boolean(descendant::p//text())")
_UNCLEAN = etree.XPath(f"boolean({external.SANITIZED_XPATH})")
_UNLIKELY_REMEMBERED = 100_000
_unlikely: dict[str, bool] = {}


class _Readable(Readability):
    """The readability algorithm; it remembers which names of elements it calls unlikely to hold text."""

    __slots__ = ()

    def remove_unlikely_candidates(self) -> None:
        """Drop elements by class and id. They were dropped when the document was made."""


def _is_unlikely(names: str) -> bool:
    found = _unlikely.get(names)
    if found is None:
        if len(_unlikely) > _UNLIKELY_REMEMBERED:
            _unlikely.clear()
        low = names.lower()
        found = bool(REGEXES["unlikelyCandidatesRe"].search(low) and not REGEXES["okMaybeItsACandidateRe"].search(low))
        _unlikely[names] = found
    return found


def _likely(tree: Node) -> Node:
    """The tree without what its class and id call unlikely to hold text. Changes the tree."""
    for node in _NAMED(tree):
        names = " ".join(filter(None, (node.get("class"), node.get("id"))))
        if len(names) > 1 and node.tag not in FRAME_TAGS and _is_unlikely(names):
            delete_element(node)
    return tree


def _readability(tree: Node) -> Node:
    try:
        summary = fromstring_bytes(_Readable(tree, min_text_length=25).summary())
    except (ValueError, TypeError, AttributeError, etree.LxmlError):  # as trafilatura: no second opinion
        summary = None
    return external.HtmlElement() if summary is None else summary


def _is_deficient(body: Node) -> bool:
    """Whether a text may be given up for a shorter one: it has no paragraphs, or more tables than those."""
    return not _PARAGRAPH_TEXT(body) or len(body.findall(".//table")) > len(body.findall(".//p"))


def _least_preferred(body: Node, text: str, options: Extractor) -> float:
    """The fewest characters with which another text might be preferred."""
    length = len(text)
    if length == 0:
        return 1
    ratio = 1.5 if options.focus == "recall" else 2.0
    if options.focus == "recall" and not body.xpath(".//head"):
        ratio = 1.0
    if _is_deficient(body):
        return min(ratio * length, max(length / 2, 2 * options.min_extracted_size))
    return ratio * length


def rescued(tree: Node) -> tuple[Node, str]:
    """jusText's opinion of a tree. Changes the tree."""
    drop_extras(tree)
    body = good_paragraphs(tree)
    return body, trim(" ".join(body.itertext()))


def compare(raw: Node, most: int, body: Node, text: str, options: Extractor) -> tuple[Node, str, str]:
    """The better of trafilatura's text, readability's and jusText's, and whose it is ("own" for trafilatura's).

    ``raw`` is the page before cleaning; ``most`` are the characters that any text of it can have.
    """
    if options.focus == "recall" and len(text) > options.min_extracted_size * 10:
        return body, text, "own"
    whose, least = "own", _least_preferred(body, text, options)
    if most >= least:
        likely = _likely(copy(raw))
        if most_text(likely) >= least:
            other = _readability(likely)
            other_text = trim(etree.tostring(other, method="text", encoding="utf-8").decode())
            if external._prefer_readability(body, other, other_text, len(text), len(other_text), options):
                body, text, whose = other, other_text, "readability"
    unclean = _UNCLEAN(body)
    if unclean or len(text) < options.min_extracted_size:
        paragraphs, good = rescued(clean(copy(raw), options))
        enough = len(text) <= external.JUSTEXT_OVERRIDE_RATIO * len(good) if unclean else len(text) < len(good)
        if good and enough:
            return paragraphs, good, "justext"
    if whose == "readability":
        body, text = external.sanitize_tree(body, options)
    return body, text, whose
