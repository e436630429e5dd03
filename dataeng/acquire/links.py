"""Addresses: one form to compare them in, which site they belong to, and those that a page names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import quote, urldefrag, urljoin, urlsplit, urlunsplit

from lxml import etree, html

from dataeng.acquire.fetch import Exchange, port_of
from dataeng.extract.charset import decode
from dataeng.extract.payload import Message, TooLarge, body_of

LONGEST_URL = 2000  # characters
_MOST_LINKS = 10_000  # of one page, in their order in it
_MOST_LISTED = 50_000  # of one sitemap: https://www.sitemaps.org/protocol.html
_SITEMAP_BYTES = 50 << 20  # of one, unpacked: the same page
_GZIP = b"\x1f\x8b\x08"
_KEPT = "%/:=&?~#+!$,;'@()*[]|"


def normal(url: str) -> str:
    """An address as the crawler compares it: no fragment, user or default port, lower-case ASCII host, a path.

    Raises ValueError for what is no address.
    """
    parts = urlsplit(urldefrag(url).url.strip())
    host = (parts.hostname or "").lower()
    if not host.isascii():
        host = host.encode("idna").decode()
    if ":" in host:
        host = f"[{host}]"
    default = 443 if parts.scheme == "https" else 80
    if parts.port and parts.port != default:
        host = f"{host}:{parts.port}"
    path, query = quote(parts.path or "/", safe=_KEPT), quote(parts.query, safe=_KEPT)
    return urlunsplit((parts.scheme.lower(), host, path, query, ""))


def target(base: str, link: str) -> str | None:
    """The http(s) address that a link on the page ``base`` names, normal; None where it is none or far too long."""
    try:
        url = normal(urljoin(base, link.strip()))
    except ValueError:
        return None
    return url if url.startswith(("http://", "https://")) and len(url) <= LONGEST_URL else None


def host_of(url: str) -> str:
    """Scheme, host and port of an address: what one robots.txt speaks for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}:{port_of(parts)}"


def site_of(url: str) -> tuple[str, int]:
    """What a seed gives leave for: its host with or without ``www.``, by http or https, at its port."""
    parts = urlsplit(url)
    port = port_of(parts)
    return (parts.hostname or "").removeprefix("www."), 0 if port in (80, 443) else port


def body(exchange: Exchange, most: int) -> bytes:
    """The body without content coding; raises TooLarge past ``most`` bytes."""
    headers = {key.lower(): value for key, value in exchange.headers if key.lower() != "transfer-encoding"}
    return body_of(Message(exchange.status, headers, exchange.body), most)


def links(exchange: Exchange, most: int) -> list[str]:
    """The addresses that an HTML page of at most ``most`` bytes links to, normal and sorted."""
    content_type = exchange.header("content-type")
    if "html" not in content_type.lower():
        return []
    try:
        text, _ = decode(body(exchange, most), content_type)
        tree = html.document_fromstring(text.replace("\0", ""))
    except (TooLarge, etree.LxmlError, ValueError):
        return []
    base = next(iter(tree.xpath("//base[@href]/@href")), "")
    try:
        base = urljoin(exchange.url, base)
    except ValueError:
        base = exchange.url
    named = tree.xpath("//a[@href]/@href | //area[@href]/@href")[:_MOST_LINKS]
    return sorted({url for link in dict.fromkeys(named) if (url := target(base, link))})


def sitemap(exchange: Exchange) -> tuple[list[str], list[str]]:
    """The pages and the further sitemaps that a sitemap lists (XML, an index, or plain text; packed or not).

    Nothing in it is followed or expanded: no entities, no DTD, bounded bytes and entries.
    """
    try:
        data = body(exchange, _SITEMAP_BYTES)
        if data.startswith(_GZIP):
            data = zlib.decompressobj(31).decompress(data, _SITEMAP_BYTES)
    except (TooLarge, zlib.error):
        return [], []
    if b"<" not in data[:512]:
        lines = data[: _MOST_LISTED * LONGEST_URL].decode("utf-8", "replace").splitlines()[:_MOST_LISTED]
        return sorted({url for line in lines if line[:4] == "http" and (url := target(exchange.url, line))}), []
    found: dict[str, set[str]] = {"url": set(), "sitemap": set()}
    try:
        for kind, place in _entries(data):
            if url := target(exchange.url, place):
                found[kind].add(url)
            if len(found["url"]) + len(found["sitemap"]) >= _MOST_LISTED:
                break
    except etree.LxmlError:
        pass  # what stands before the damage counts
    return sorted(found["url"]), sorted(found["sitemap"])


def _entries(data: bytes) -> Iterator[tuple[str, str]]:
    """Each ``<loc>`` with the name of the element around it, as a stream."""
    parser = etree.iterparse(
        BytesIO(data), events=("end",), resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    for _, element in parser:
        name, parent = str(element.tag).rpartition("}")[2], element.getparent()
        if name == "loc" and parent is not None and element.text:
            kind = str(parent.tag).rpartition("}")[2]
            if kind in ("url", "sitemap"):
                yield kind, element.text
        element.clear()  # whatever it is: nothing that was read is kept
        while parent is not None and element.getprevious() is not None:
            del parent[0]
