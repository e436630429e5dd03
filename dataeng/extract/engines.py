"""Main-text extractors by name: the built-in ones, or a user's function ``package.module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

log = logging.getLogger("millrace")

Node = Any  # an lxml element
Engine = Callable[[Node, str, str], tuple[str, str]]  # tree (which may be changed), HTML, URL -> text, path
BUILT_IN = ("quick", "trafilatura", "resiliparse")
AGREES = 0.9  # least agreement of two texts that count as agreeing
# What `quick` was written against and compared with, page by page.
QUICK_KNOWS = {"trafilatura": ("2.3.1",), "justext": ("3.0.2",)}


@cache
def _options() -> Any:
    from trafilatura.settings import Extractor

    return Extractor(output_format="python", comments=False, tables=True, formatting=False, with_metadata=False)


def _trafilatura(tree: Node, _page: str, _url: str) -> tuple[str, str]:
    from trafilatura import bare_extraction  # here, so that a recipe is checked without loading it

    document = bare_extraction(tree, options=_options())
    return (getattr(document, "text", None) or "") if document is not None else "", "trafilatura"


def _resiliparse(_tree: Node, page: str, _url: str) -> tuple[str, str]:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(page, main_content=True, alt_texts=False), "resiliparse"


def _quick(tree: Node, page: str, _url: str) -> tuple[str, str]:
    from dataeng.extract import quick

    try:
        text, whose = quick.extract(tree, page)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.warning("quick: %s: a page goes to plain trafilatura", type(error).__name__)
        return _trafilatura(quick.load(page), "", "")
    return text, f"quick:{whose}"


@cache
def quick_is_known() -> bool:
    """Whether the installed libraries are those that `quick` was compared with; logs a line where they are not."""
    for name, versions in QUICK_KNOWS.items():
        if (version := metadata.version(name)) not in versions:
            log.warning(
                "extract.engine quick knows %s %s, not %s: plain trafilatura runs", name, ", ".join(versions), version
            )
            return False
    return True


def _users(name: str) -> Engine:
    module, _, attribute = name.partition(":")
    function: Callable[[str, str], str | None] = getattr(importlib.import_module(module), attribute)

    def run(_tree: Node, page: str, url: str) -> tuple[str, str]:
        return function(page, url) or "", name

    return run


@cache
def engine_of(name: str) -> Engine:
    """The extractor of that name. Raises ImportError or AttributeError for a user's function that is not there."""
    if ":" in name:
        return _users(name)
    if name == "quick" and not quick_is_known():
        name = "trafilatura"
    return {"quick": _quick, "trafilatura": _trafilatura, "resiliparse": _resiliparse}[name]


def checked_name(name: str) -> str:
    """``name`` if it is a built-in engine's or a function's that can be imported; raises ValueError otherwise."""
    if name in BUILT_IN:
        return name
    known = f"known are {', '.join(BUILT_IN)}, or a function as package.module:function"
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier():
        raise ValueError(f"no such engine: {known}")
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise ValueError(f"{error}: {known}") from None
    if not callable(function):
        raise ValueError(f"{module} has no function {attribute}: {known}")
    return name


def source_hash(name: str) -> str:
    """SHA-256 of the file that holds a user's function: what stands for its results. Empty for built-in engines."""
    if name in BUILT_IN:
        return ""
    found = importlib.util.find_spec(name.partition(":")[0])
    origin = found.origin if found else None
    return hashlib.sha256(Path(origin).read_bytes()).hexdigest() if origin and Path(origin).is_file() else ""


def agreement(one: str, other: str) -> float:
    """F1 of the words that two texts have in common, counted with their repetitions: 1 for equal texts."""
    words, others = Counter(one.split()), Counter(other.split())
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else 1.0


def check_counts(agreements: Sequence[float]) -> dict[str, float]:
    """What a file's compared pages add to the manifest: their number, how many agree, and the sum of agreements."""
    if not agreements:
        return {}
    agreeing = sum(value >= AGREES for value in agreements)
    return {"checked": len(agreements), "checked_agreeing": agreeing, "checked_sum": round(sum(agreements), 4)}


def reference(tree: Node) -> str:
    """Plain trafilatura's text, which other engines are checked against. Leaves the tree as it is."""
    return _trafilatura(copy(tree), "", "")[0]
