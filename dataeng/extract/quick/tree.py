"""A page's tree as trafilatura wants it: parsed, cleaned and converted, in fewer passes and mostly inside libxml2."""

from __future__ import annotations

from copy import copy

from lxml import etree
from lxml.html import HtmlElement, fromstring
from trafilatura import htmlprocessing, settings, xpaths
from trafilatura.baseline import _spaced_text
from trafilatura.settings import Extractor
from trafilatura.utils import is_dubious_html, repair_faulty_html
from trafilatura.xml import delete_element

from dataeng.extract.quick.verdicts import Node, Verdicts

# One class for all elements: lxml.html's own parser asks a Python function for the class of each.
_PARSER = etree.HTMLParser(
    collect_ids=False, default_doctype=False, encoding="utf-8", remove_comments=True, remove_pis=True
)
_PARSER.set_element_class_lookup(etree.ElementDefaultClassLookup(element=HtmlElement))
_CLEANED = tuple(tag for tag in settings.MANUALLY_CLEANED if tag != "form")
_LAYOUT = etree.XPath("descendant::figure[.//table] | descendant::table[@role='presentation' or @role='none']")
_EMPTY = etree.XPath("descendant::*[not(node())]")
_MATH = etree.XPath("boolean(descendant::math)")
_FAQ = etree.XPath("descendant::strong[contains(@class, 'schema-faq-question')]")
_RAISED = etree.XPath("descendant::*[self::sub or self::sup][not(*) and not(text())]")
_LINKS = etree.XPath("descendant::a[ancestor::*[(self::div or self::li or self::p or self::table) and parent::*]]")
_TEXTS = etree.XPath("descendant::text()", smart_strings=False)
_INLINE = tuple(htmlprocessing.REND_TAG_MAPPING)
_CONVERTED = tuple(htmlprocessing.CONVERSIONS)
_RAW = Verdicts(
    [*xpaths.RAW_TREE_PRUNE_XPATH, *xpaths.REMOVE_COMMENTS_AND_LISTS_XPATH],
    ("aside", "details", "div", "list", "ol", "section", "ul"),
)
_COMMENTS = 1 << len(xpaths.RAW_TREE_PRUNE_XPATH)
_MEASURED = Verdicts([settings.BASIC_CLEAN_XPATH])


def load(text: str) -> Node | None:
    """The tree of a page, as ``trafilatura.load_html`` gives it for text; None for what is no HTML."""
    beginning = text[:50].lower()
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


def _from_bytes(text: str) -> Node | None:
    try:
        return fromstring(text.encode("utf-8", "surrogatepass"), parser=_PARSER)
    except (ValueError, etree.LxmlError):
        return None


def without_extras(tree: Node, comments: bool) -> Node:
    """The tree less scripts, styles, appended articles and, unless ``comments``, its readers' comments."""
    etree.strip_elements(tree, "script", "style", with_tail=False)
    found = _RAW.select(tree)
    if any(verdict & (_COMMENTS - 1) for _, verdict in found):  # these rules look at the contents as well
        htmlprocessing.prune_unwanted_nodes(tree, xpaths.RAW_TREE_PRUNE_XPATH)
    if not comments:
        for node, verdict in found:
            if verdict & _COMMENTS:
                delete_element(node)
    return tree


def most_text(tree: Node) -> int:
    """The most characters that any extraction from the tree can have, its white space folded."""
    return len(" ".join(" ".join(_TEXTS(tree)).split()))


def drop_extras(tree: Node) -> None:
    """``trafilatura.baseline.basic_cleaning``: asides, footers, cookie notices. Changes the tree."""
    for node, _ in _MEASURED.select(tree):
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
    if _MATH(tree):
        htmlprocessing.recover_math(tree)
    for node in _LAYOUT(tree):
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
    for node in _LINKS(tree):
        node.tag = "ref"
    etree.strip_tags(tree, "a")
    for node in _FAQ(tree):
        node.attrib.clear()
        node.set("rend", "h3")
        node.tag = "head"
    for node in _RAISED(tree):
        delete_element(node)
    etree.strip_tags(tree, *_INLINE)
    for node in tree.iter(*_CONVERTED):
        htmlprocessing.CONVERSIONS[node.tag](node)
    return tree


def prepared(raw: Node, options: Extractor) -> Node:
    """A cleaned and converted copy."""
    return convert(clean(copy(raw), options))
