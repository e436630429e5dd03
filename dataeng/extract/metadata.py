"""What a page states about itself: title, author, date, licence, declared language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lxml import etree

from dataeng.extract.tidy import one_line

Node = Any  # an lxml element

# Names of <meta> elements (name, property, itemprop or http-equiv, in lower case), best first.
_METAS = {
    "title": ("og:title",),
    "author": ("author", "article:author", "dc.creator", "dcterms.creator"),
    "date": (
        "article:published_time",
        "date",
        "datepublished",
        "dc.date",
        "dc.date.issued",
        "dcterms.created",
        "dcterms.date",
        "pubdate",
    ),
    "licence": ("dc.rights.license", "dcterms.license"),
    "declared_language": ("content-language",),
}
_KEYS = ("name", "property", "itemprop", "http-equiv")
_TITLE = etree.XPath("/html/head/title//text()")
_HEADING = etree.XPath("(//h1)[1]//text()")
_AUTHOR = etree.XPath("(//a[@rel='author'])[1]//text()")
_XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_LICENCES = etree.XPath("//*[self::a or self::link][contains(concat(' ', @rel, ' '), ' license ')]/@href")
_COMMONS = etree.XPath("//a[contains(@href, 'creativecommons.org/')]/@href")
_COMMONS_ADDRESS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<terms>[a-z]+(?:-[a-z]+){0,3})/(?P<version>\d\.\d)"
    r"(?:/(?P<place>[a-z]{2}|igo|scotland)\b)?|publicdomain/(?P<domain>zero|mark)/(?P<since>\d\.\d))",
    re.IGNORECASE,
)
_EMBEDDED_DATE = re.compile(r'"datePublished"\s*:\s*"(\d{4}-\d\d-\d\d[0-9T:.+Z-]{0,25})"')


def licence_name(address: str) -> str | None:
    """A Creative Commons address as a name such as ``cc-by-sa-4.0``, ``cc-by-3.0-de`` or ``cc0-1.0``; else None."""
    found = _COMMONS_ADDRESS.search(address)
    if found is None:
        return None
    if found["domain"]:
        return f"{'cc0' if found['domain'].lower() == 'zero' else 'pdm'}-{found['since']}"
    place = f"-{found['place'].lower()}" if found["place"] else ""
    return f"cc-{found['terms'].lower()}-{found['version']}{place}"


def _licence(tree: Node, page: str) -> str:
    """The licence that the page links as its own, by name where it is one of Creative Commons."""
    declared = _LICENCES(tree) if "license" in page else []
    for address in declared:
        if name := licence_name(address):
            return name
    names = {licence_name(address) for address in (_COMMONS(tree) if "creativecommons.org/" in page else [])} - {None}
    if not declared and len(names) == 1:  # pages about several licences state none of them as their own
        return str(names.pop())
    return next(iter(declared), "")


def _date(tree: Node, page: str) -> str:
    if found := next((time.get("datetime") for time in tree.iter("time") if time.get("datetime")), None):
        return str(found)
    embedded = _EMBEDDED_DATE.search(page)
    return embedded[1] if embedded else ""


def _language(tree: Node) -> str:
    """The language of the root element: HTML's attribute, or XML's by either way of reading it."""
    if tree.tag != "html":
        return ""
    return _first(value for name in ("lang", "xml:lang", _XML_LANGUAGE) if (value := tree.get(name)))


def _first(texts: Iterable[Any]) -> str:
    return str(next(iter(texts), ""))


def metadata_of(tree: Node, page: str) -> dict[str, str]:
    """Title, author, date, licence and declared language where a page states them; ``page`` is its HTML."""
    stated: dict[str, str] = {}
    for meta in tree.iter("meta"):
        content = meta.get("content")
        if content and content.strip():
            for key in _KEYS:
                if name := meta.get(key):
                    stated.setdefault(name.strip().lower(), content)
    found = {field: _first(stated[name] for name in names if name in stated) for field, names in _METAS.items()}
    found["title"] = found["title"] or "".join(_TITLE(tree)).strip() or "".join(_HEADING(tree))
    found["author"] = found["author"] or ("".join(_AUTHOR(tree)) if "author" in page else "")
    found["date"] = found["date"] or _date(tree, page)
    found["licence"] = licence_name(found["licence"]) or found["licence"] or _licence(tree, page)
    found["declared_language"] = _language(tree) or found["declared_language"]
    return {field: text for field, value in found.items() if (text := one_line(value))}
