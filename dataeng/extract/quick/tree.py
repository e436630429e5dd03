"""A page's tree as trafilatura wants it: parsed, cleaned and converted, in fewer passes and mostly inside libxml2."""

from __future__ import annotations

from copy import copy

from lxml import etree
from lxml.html import HtmlElement, fromstring
from trafilatura import htmlprocessing, settings, xpaths
from trafilatura.baseline import _spaced_text
from trafilatura.settings import Extractor
from trafilatura.utils import DOCTYPE_TAG, is_dubious_html, repair_faulty_html
from trafilatura.xml import delete_element

from dataeng.extract.quick.verdicts import Node, Verdicts

# One class for all elements: lxml.html's own parser asks a Python function for the class of each.
_PARSER = etree.HTMLParser(
    collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True, remove_pis=True
)
_PARSER.set_element_class_lookup(etree.ElementDefaultClassLookup(element=HtmlElement))
_BEGINNING = 4096  # characters
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\r")
_CLEANED = tuple(tag for tag in settings.MANUALLY_CLEANED if tag != "form")
_EMPTY = etree.XPath("descendant::*[not(node())]")
_LINKED = ("div", "li", "p", "table")
_TEXTS = etree.XPath("count(descendant::text()) + count(descendant::*)")
_INLINE = tuple(htmlprocessing.REND_TAG_MAPPING)
_CONVERTED = tuple(htmlprocessing.CONVERSIONS)
RAW = Verdicts([*xpaths.RAW_TREE_PRUNE_XPATH, *xpaths.REMOVE_COMMENTS_AND_LISTS_XPATH])
_COMMENTS = 1 << len(xpaths.RAW_TREE_PRUNE_XPATH)
MEASURED = Verdicts([settings.BASIC_CLEAN_XPATH])


def load(text: str) -> Node | None:
    """The tree of a page, as ``trafilatura.load_html`` gives it for text; None for what is no HTML."""
    beginning = text[:50].lower()
    if _needs_repair(text, beginning):
        text = repair_faulty_html(text, beginning)
    tree = None
    try:
        tree = fromstring(text, parser=_PARSER)
    except (ValueError, etree.LxmlError):
        tree = _from_bytes(text)
    else:
        if len(tree) < 1:
            tree = _from_bytes(text)
    return None if tree is not None and is_dubious_html(beginning) and len(tree) < 2 else tree


def _needs_repair(text: str, beginning: str) -> bool:
    """Whether ``repair_faulty_html`` could change the page: control characters, odd beginnings."""
    if "\ufffe" in text or "\uffff" in text or ("doctype" in beginning and "\n" not in text):
        return True
    lines = text[:_BEGINNING].splitlines()[:4]
    if DOCTYPE_TAG.match(text) or any("<html" in line and line.endswith("/>") for line in lines):
        return True
    data = text.encode("utf-8", "surrogatepass")
    return len(data) != len(data.translate(None, _CONTROLS))


def _from_bytes(text: str) -> Node | None:
    try:
        return fromstring(text.encode("utf-8", "surrogatepass"), parser=_PARSER)
    except (ValueError, etree.LxmlError):
        return None


def without_extras(tree: Node, comments: bool) -> Node:
    """The tree less scripts, styles, appended articles and, unless ``comments``, its readers' comments."""
    etree.strip_elements(tree, "script", "style", with_tail=False)
    found = RAW.select(tree)
    if any(verdict & (_COMMENTS - 1) for verdict in found.values()):  # these rules look at the contents as well
        htmlprocessing.prune_unwanted_nodes(tree, xpaths.RAW_TREE_PRUNE_XPATH)
    if not comments:
        for node, verdict in found.items():
            if verdict & _COMMENTS:
                delete_element(node)
    return tree


def length_of(tree: Node) -> int:
    """The characters of all of the tree's text, its white space folded."""
    return len(" ".join(tree.text_content().split()))


def pieces(tree: Node) -> int:
    """The number of places at which a tree's text can be parted by a space."""
    return int(_TEXTS(tree))


def drop_extras(tree: Node) -> None:
    """``trafilatura.baseline.basic_cleaning``: asides, footers, cookie notices. Changes the tree."""
    for node in MEASURED.select(tree):
        delete_element(node)


def page_text(tree: Node) -> int:
    """The characters of the page's text, as ``trafilatura.html2txt`` measures it. Changes the tree."""
    body = tree.find(".//body")
    body = tree if body is None else body
    drop_extras(body)
    return len(_spaced_text(body))


def _drop(tree: Node) -> None:
    """Delete the elements that hold no text, as deleting them tag by tag while walking the tree does."""
    found = list(tree.iter(*_CLEANED))
    nested = {str(node.tag) for node in found if next(node.iterancestors(node.tag), None) is not None}
    if not nested:
        etree.strip_elements(tree, *_CLEANED, with_tail=False)
        return
    for tag in _CLEANED:  # the walk ends inside a deleted element that holds another of its tag
        for node in tree.iter(tag):
            delete_element(node)


def clean(tree: Node, options: Extractor) -> Node:
    """``trafilatura.htmlprocessing.tree_cleaning`` for text with tables, without images. Changes the tree."""
    if options.focus != "balanced":
        return htmlprocessing.tree_cleaning(tree, options)
    if next(tree.iter("math"), None) is not None:
        htmlprocessing.recover_math(tree)
    for node in tree.iter("figure", "table"):
        table = node.tag == "table"
        if node.get("role") in ("presentation", "none") if table else node.find(".//table") is not None:
            node.tag = "div"
    etree.strip_tags(tree, *settings.MANUALLY_STRIPPED)
    _drop(tree)
    htmlprocessing._handle_forms(tree)
    for node in _EMPTY(tree):
        if node.tag in settings.CUT_EMPTY_ELEMS:
            delete_element(node)
    return tree


def convert(tree: Node) -> Node:
    """``trafilatura.htmlprocessing.convert_tags`` for text without links, formatting and images. Changes the tree."""
    for node in tree.iter("a"):
        if next(node.iterancestors(*_LINKED), tree) is not tree:
            node.tag = "ref"
    etree.strip_tags(tree, "a")
    for node in tree.iter("strong"):
        if "schema-faq-question" in node.get("class", ""):
            node.attrib.clear()
            node.set("rend", "h3")
            node.tag = "head"
    for node in list(tree.iter("sub", "sup")):
        if not node.text and len(node) == 0:
            delete_element(node)
    etree.strip_tags(tree, *_INLINE)
    for node in tree.iter(*_CONVERTED):
        htmlprocessing.CONVERSIONS[node.tag](node)
    return tree


def prepared(raw: Node, options: Extractor) -> Node:
    """A cleaned and converted copy."""
    return convert(clean(copy(raw), options))
