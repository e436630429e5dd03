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
from dataeng.extract.quick.tree import clean, drop_extras, length_of
from dataeng.extract.quick.verdicts import Node

_UNCLEAN = tuple(external.SANITIZED_XPATH.replace(".//", "").split("|"))
_DEFICIENT = etree.XPath("not(descendant::p//text()) or count(descendant::table) > count(descendant::p)")
_TROUBLE = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
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


def _unlikely_in(tree: Node) -> list[Node]:
    """The elements that their class and id call unlikely to hold text."""
    found = []
    for node in tree.iterdescendants():
        style, name = node.get("class"), node.get("id")
        if style or name:
            names = f"{style} {name}" if style and name else style or name
            if len(names) > 1 and _is_unlikely(names) and node.tag not in FRAME_TAGS:
                found.append(node)
    return found


def _without(nodes: list[Node], most: int) -> int:
    """The characters that can be left of ``most`` when these elements are deleted."""
    deleted = set(nodes)
    outer = [node for node in nodes if not any(above in deleted for above in node.iterancestors())]
    return most - sum(length_of(node) for node in outer)


def _readability(tree: Node) -> Node:
    try:
        summary = fromstring_bytes(_Readable(tree, min_text_length=25).summary())
    except (*_TROUBLE, etree.LxmlError):  # as in trafilatura: then there is no second opinion
        summary = None
    return external.HtmlElement() if summary is None else summary


def _least_preferred(body: Node, text: str, options: Extractor) -> float:
    """The fewest characters with which another text might be preferred."""
    length = len(text)
    if length == 0:
        return 1
    ratio = 1.5 if options.focus == "recall" else 2.0
    if options.focus == "recall" and not body.xpath(".//head"):
        ratio = 1.0
    if _DEFICIENT(body):  # such a text may be given up for a shorter one
        return min(ratio * length, max(length / 2, 2 * options.min_extracted_size))
    return ratio * length


def most_of(tree: Node) -> int:
    """The most characters that readability can find: all there are, and a word for each frame."""
    return length_of(tree) + 5 * sum(1 for _ in tree.iter("iframe"))


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
        likely = raw if _without(_unlikely_in(raw), most) < least else copy(raw)
        if likely is not raw:
            for node in _unlikely_in(likely):
                delete_element(node)
            other = _readability(likely)
            other_text = trim(etree.tostring(other, method="text", encoding="utf-8").decode())
            if external._prefer_readability(body, other, other_text, len(text), len(other_text), options):
                body, text, whose = other, other_text, "readability"
    unclean = next(body.iterdescendants(*_UNCLEAN), None) is not None
    if unclean or len(text) < options.min_extracted_size:
        paragraphs, good = rescued(clean(copy(raw), options))
        enough = len(text) <= external.JUSTEXT_OVERRIDE_RATIO * len(good) if unclean else len(text) < len(good)
        if good and enough:
            return paragraphs, good, "justext"
    if whose == "readability":
        body, text = external.sanitize_tree(body, options)
    return body, text, whose


def forget() -> None:
    """Forget what was decided on other pages' names; it changes no result, only what the next page costs."""
    _unlikely.clear()
