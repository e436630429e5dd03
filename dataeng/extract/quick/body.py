"""trafilatura's own main text: its rules and its handling of elements, in fewer walks of the tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lxml import etree
from trafilatura import xpaths
from trafilatura.htmlprocessing import link_density_test, link_density_test_tables, process_node
from trafilatura.main_extractor import CODES_QUOTES, NOT_AT_THE_END, REBUILT_BLOCKS, handle_textelem
from trafilatura.settings import (
    DEDUPE_SCAN_CAP,
    INLINE_CONSUMING,
    INLINE_FORMATTABLE,
    MIN_DUPLICATE_LENGTH,
    TAG_CATALOG,
    Extractor,
)
from trafilatura.utils import SPACING_PROTECTED, text_chars_test, trim
from trafilatura.xml import delete_element

from dataeng.extract.quick.verdicts import Node, Verdicts

_EVERY = [  # each of these expressions selects the first element of its kind; here all of them
    etree.XPath(path.path.replace("[1]", ""), namespaces={"re": xpaths.REGEXP_NS}) for path in xpaths.BODY_XPATH
]
BODIES = Verdicts(_EVERY)
_RULES = (*xpaths.OVERALL_DISCARD_XPATH, *xpaths.DISCARD_IMAGE_ELEMENTS, *xpaths.TEASER_DISCARD_XPATH)
UNWANTED = Verdicts(_RULES)
_OVERALL = (1 << len(xpaths.OVERALL_DISCARD_XPATH)) - 1
_ALL = (1 << len(_RULES)) - 1
_TEASERS = _ALL & ~((1 << len(_RULES) - len(xpaths.TEASER_DISCARD_XPATH)) - 1)
_TAGS = frozenset({*TAG_CATALOG, "table", "td", "th", "tr"})
_HANDLED = frozenset({*CODES_QUOTES, *INLINE_CONSUMING, "list", "head", "p", "lb", "table", "div"})
_LINKED = ("div", "list", "p")  # in this order
_WILD = ("code", "p", "quote", "table", "div")
_WILDER = (*_WILD, "lb", "list")


def _text_of(node: Node) -> str:
    return trim("".join(node.itertext()))


def _prune_unwanted(top: Node, rules: int) -> None:
    """Delete what the rules on tags and attributes call boilerplate, unless that were nearly all of the text."""
    found = UNWANTED.select(top)
    overall = {node for node, verdict in found.items() if verdict & _OVERALL}
    outer = [node for node in overall if not any(above in overall for above in node.iterancestors())]
    if outer:
        length = len(top.text_content())
        if length - sum(len(node.text_content()) for node in outer) > length / 7:
            for node in outer:
                delete_element(node)
    for node, verdict in found.items():
        if verdict & rules > _OVERALL:
            delete_element(node)


def _holding(top: Node, tag: str) -> set[Node]:
    """The elements that have a descendant of this tag."""
    holding: set[Node] = set()
    for node in top.iterdescendants(tag):
        for above in node.iterancestors():
            if above in holding:
                break
            holding.add(above)
    return holding


def _prune_links(top: Node, tag: str, tested: set[Node], backtracking: bool) -> list[Node]:
    """Delete those of the elements to be tested that hold little but links; what may test otherwise after that."""
    deleted: dict[Node, None] = {}
    for node in top.iter(tag):
        if node not in tested:
            continue
        dense, short = link_density_test(node)
        if dense or (backtracking and short and len(node) >= 3 and len(trim(node.text_content())) < 100):
            parent = node.getparent()
            if not (tag == "p" and parent is not None and parent.tag in ("item", "td", "th")):
                deleted[node] = None
    changed: list[Node] = []
    for node in deleted:
        changed += node.iterancestors()
        changed += [before for before in (node.getprevious(),) if before is not None]
        delete_element(node)
    return changed


def _prune(top: Node, options: Extractor) -> Node:
    """Delete a section's boilerplate, and strip the marks that were needed to find it."""
    _prune_unwanted(top, _ALL if options.focus != "recall" else _ALL & ~_TEASERS)
    holding = _holding(top, "ref")
    if holding:
        tested = holding
        for _ in range(2):
            tested = {node for tag in _LINKED for node in _prune_links(top, tag, tested, tag == "div")} & holding
        tables = [node for node in top.iter("table") if node in holding and link_density_test_tables(node)]
        for node in tables:
            delete_element(node, keep_tail=False)
    etree.strip_tags(top, "span", "ref")
    return top


class Frames:
    """The places that may hold a page's main text, by trafilatura's expressions, best first."""

    def __init__(self, tree: Node) -> None:
        self.tree, self.matched = tree, False

    def __iter__(self) -> Iterator[Node]:
        found = BODIES.select(self.tree)
        for number in range(len(BODIES.rules)):
            frame = next((node for node, verdict in found.items() if verdict >> number & 1), None)
            if frame is not None:
                self.matched = True
                yield frame
                found = BODIES.select(self.tree)  # the last frame was changed, and found wanting


def _take(elements: Sequence[Node], tags: set[str], result: Node, options: Extractor) -> None:
    """Append to ``result`` what the handlers make of each element."""
    for node in elements:
        tag, tail = node.tag, node.tail
        if tag not in _HANDLED or node.getroottree().getroot() is result:
            continue
        made = handle_textelem(node, tags, options)
        if made is not None:
            result.append(made)
            if made is not node:
                node.tag = "done"
        if tag in REBUILT_BLOCKS and text_chars_test(tail) and (made is None or made.tail is None):
            after = etree.Element("p")
            after.text = tail
            if process_node(after, options) is not None:
                result.append(after)


def _few_paragraphs(frame: Node, least: int) -> bool:
    """Whether all paragraphs of the page together have no text, or less than ``least`` characters."""
    length = 0
    for node in frame.getroottree().getroot().iter("p"):
        if next(node.iterancestors("p"), None) is None:
            length += len(node.text_content())
            if length >= least:
                return False
    return True


def _from_frame(frame: Node, tags: set[str], result: Node, options: Extractor) -> None:
    """Append a frame's text to ``result``; the frame is pruned already."""
    if _few_paragraphs(frame, options.min_extracted_size * 3):
        tags.add("div")
    elements = list(frame.iterdescendants())
    inside = {node.tag for node in elements}
    if inside == {"lb"} or (frame.tag == "div" and "div" in tags and inside <= INLINE_FORMATTABLE | {"lb"}):
        elements = [frame]
    lead, start = None, len(result)
    if elements != [frame] and text_chars_test(frame.text):
        lead = etree.Element("p")
        lead.text = frame.text
        lead = process_node(lead, options)
    _take(elements, tags, result, options)
    while len(result) > 0 and result[-1].tag in NOT_AT_THE_END:
        delete_element(result[-1], keep_tail=False)
    if len(result) > 1 and lead is not None:
        result.insert(start, lead)


def _wild(tree: Node, options: Extractor) -> list[Node]:
    """The elements to be recovered from a whole page."""
    if options.focus == "recall":
        return list(tree.iterdescendants(*_WILDER))
    return [node for node in tree.iterdescendants(*_WILD) if node.tag != "div" or "w3-code" in node.get("class", "")]


def _recover(tree: Node, result: Node, tags: set[str], consumed: set[Node], options: Extractor) -> None:
    """Append what stands outside the frames: all paragraphs, quotes, code and tables not yet in ``result``."""
    tags = tags | {"div", "lb"} if options.focus == "recall" else tags
    texts = [_text_of(node) for node in result]
    existing, known = "\n".join(filter(None, texts)), set(texts)
    handled: set[Node] = set()
    _prune(tree, options)
    for node in _wild(tree, options):
        if node in consumed or (handled and any(above in handled for above in node.iterancestors())):
            continue
        made = handle_textelem(node, tags, options)
        if made is None:
            continue
        if made is node and len(node):
            handled.add(node)
        text = _text_of(made)
        scanned = len(existing) <= DEDUPE_SCAN_CAP
        fragment = trim(text + (made.tail or "")) if text_chars_test(made.tail) else ""
        if text and (text in known or (scanned and _repeats(text, fragment, existing))):
            continue
        result.append(made)
        if scanned:
            existing += "\n" + (fragment or text)
        known.add(text)


def _repeats(text: str, fragment: str, existing: str) -> bool:
    return bool((len(text) > MIN_DUPLICATE_LENGTH and text in existing) or (fragment and fragment in existing))


def _finish(result: Node) -> None:
    """Drop repeated blocks, and elements that were only needed on the way."""
    previous = None
    for node in list(result):
        current = _text_of(node)
        if current and current == previous and len(current) > MIN_DUPLICATE_LENGTH:
            delete_element(node, keep_tail=False)
        else:
            previous = current
    etree.strip_elements(result, "done")
    etree.strip_tags(result, "div")
    for node in result.iter("lb"):
        blank = node.tail and not text_chars_test(node.tail)
        if blank and not any(above.tag in SPACING_PROTECTED for above in node.iterancestors()):
            node.tail = None


def joined(result: Node) -> str:
    """All text of a body, as its length is measured."""
    return " ".join(result.itertext()).strip()


def main_text(tree: Node, again: Any, options: Extractor) -> tuple[Node, str]:
    """The body and text that ``trafilatura.main_extractor.extract_content`` finds in a prepared tree.

    ``again()`` makes the same prepared tree once more, for the few pages where the first pass finds too little.
    """
    result, tags = etree.Element("body"), set(_TAGS)
    order = list(tree.iter())  # kept, since an element that is known to Python is found again faster
    frames = Frames(tree)
    for frame in frames:
        if len(_prune(frame, options)) == 0:
            continue
        _from_frame(frame, tags, result, options)
        if len(result) > 1:
            break
    text = joined(result)
    if len(result) == 0 or len(text) < options.min_extracted_size:
        consumed: set[Node] = set()
        if frames.matched:
            tree = again()
            consumed = {twin for node, twin in zip(order, tree.iter(), strict=True) if node.tag == "done"}
        _recover(tree, result, tags, consumed, options)
        text = joined(result)
    _finish(result)
    return result, text
