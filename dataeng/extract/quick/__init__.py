"""Engine `quick`: the main text that trafilatura finds, in fewer passes over the page.

The order of the steps and what they decide are trafilatura's own. What differs: rules on tags and attributes
are run once for each kind of element (`verdicts`), the tree is cleaned inside libxml2 (`tree`), copies are made
where a step needs them, and the general algorithms (`rivals`) are asked only where their answer can matter.
"""

from __future__ import annotations

from copy import copy

from trafilatura import core
from trafilatura.settings import Extractor
from trafilatura.xml import xmltotxt

from dataeng.extract.quick import body as body_rules
from dataeng.extract.quick import rivals
from dataeng.extract.quick import tree as tree_rules
from dataeng.extract.quick.body import main_text
from dataeng.extract.quick.rivals import compare, most_of, rescued
from dataeng.extract.quick.tree import load, page_text, pieces, prepared, without_extras
from dataeng.extract.quick.verdicts import Node

_OPTIONS = Extractor(output_format="python", comments=False, tables=True, formatting=False, with_metadata=False)
_RECALL = Extractor(
    output_format="python", comments=False, tables=True, formatting=False, with_metadata=False, recall=True
)
_FORUM = "DiscussionForumPosting"
_EMBEDDED = ("ld+json", "data-preloaded")


def _own(raw: Node, most: int, options: Extractor) -> tuple[Node, str, str]:
    """trafilatura's own text of a page, or a general algorithm's where that is preferred."""
    body, text = main_text(prepared(raw, options), lambda: prepared(raw, options), options)
    return compare(raw, most, body, text, options)


def _baseline(raw: Node, page: str, forum: bool) -> tuple[Node, str]:
    """trafilatura's last resort: text embedded as data, else all paragraphs, else all text."""
    if _EMBEDDED[0] in page:
        raw = core.prune_unwanted_nodes(load(page), core.RAW_TREE_PRUNE_XPATH)
        if not forum:
            raw = core.prune_unwanted_nodes(raw, core.REMOVE_COMMENTS_AND_LISTS_XPATH)
    body, text, _ = core.baseline(raw)
    return body, text


def _escalated(raw: Node, most: int, length: int) -> tuple[Node, str, str] | None:
    """Another try for a text of ``length`` characters that covers little of its page; None if that finds no more."""
    body, text, _ = _own(raw, most, _RECALL)
    paragraphs, good = rescued(copy(raw))
    if len(good) > len(text) and len(good) > core.ESCALATION_JUSTEXT_RATIO * length:
        return paragraphs, good, "recall-justext"
    if len(text) >= _OPTIONS.min_extracted_size and len(text) > core.ESCALATION_ACCEPT_RATIO * length:
        return body, text, "recall"
    return None


def forget() -> None:
    """Forget the verdicts on earlier pages' names; it changes no result, only what the next page costs."""
    rivals.forget()
    for verdicts in (body_rules.BODIES, body_rules.UNWANTED, tree_rules.RAW, tree_rules.MEASURED):
        verdicts.forget()


def extract(tree: Node, page: str) -> tuple[str, str]:
    """A page's main text and whose it is; ``page`` is the text that ``tree`` was parsed from. Changes the tree."""
    forum = _FORUM in page and core._forum_thread_page(tree)
    raw = without_extras(tree, forum)
    known = list(raw.iter())  # kept, since an element that is known to Python is found again faster
    most = most_of(known[0])
    body, text, whose = _own(raw, most, _OPTIONS)
    if len(text) < _OPTIONS.min_extracted_size:
        base, base_text = _baseline(raw, page, forum)
        if len(base_text) > len(text):
            body, text, whose = base, base_text, "baseline"
    least = len(text) / core.ESCALATION_PAGE_SHARE
    few = 0 < len(text) < core.ESCALATION_MAX_LENGTH and (least < most or least < most + pieces(raw))
    if few and least < page_text(copy(raw)):
        body, text, whose = _escalated(raw, most, len(text)) or (body, text, whose)
    return ("" if len(text) < _OPTIONS.min_output_size else xmltotxt(body, False)), whose
