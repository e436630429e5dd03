"""Bytes of a page to text: byte order mark, then declarations that hold, then detection."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes
from resiliparse.parse.encoding import detect_encoding

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]+)", re.IGNORECASE)
_META = re.compile(rb"<meta\b[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:+-]+)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\b[^>]{0,200}?encoding\s*=\s*[\"']([\w.:+-]+)", re.IGNORECASE)
_META_WITHIN = 4096  # bytes from the start of a page in which a declaration counts
_DETECTED_FROM = 64 << 10  # bytes that the thorough detector looks at
# Labels that browsers read as a superset (https://encoding.spec.whatwg.org/#names-and-labels).
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_OTHER_NAMES = {
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "windows-874": "cp874",
    "windows-949": "cp949",
    "x-x-big5": "big5hkscs",
    "x-gbk": "gb18030",
    "unicode": "utf-16",
}
_ONE_BYTE = re.compile(r"cp125\d|cp874|iso8859|koi8|mac|cp866")


def codec_of(label: str | None) -> str | None:
    """The Python codec for a declared label as browsers read it; None for one that is unknown."""
    if not label:
        return None
    label = label.strip().lower()
    try:
        name = codecs.lookup(_OTHER_NAMES.get(label, label)).name
        "".encode(name)  # hex, zip and the like are codecs too, though not of text
    except (LookupError, ValueError, TypeError):
        return None
    return None if name in ("utf-7", "idna", "punycode", "unicode_escape", "undefined") else _SUPERSETS.get(name, name)


def declared(body: bytes, content_type: str) -> list[str]:
    """The codecs that the HTTP header and the page itself declare, in the order of their right."""
    head = body[:_META_WITHIN]
    header = _HEADER.search(content_type)
    found = [header[1] if header else None]
    found += [match[1].decode("ascii", "replace") for match in (_XML.match(head), _META.search(head)) if match]
    return list(dict.fromkeys(name for label in found if (name := codec_of(label))))


def _strict(body: bytes, name: str) -> str | None:
    try:
        return body.decode(name)
    except (UnicodeDecodeError, UnicodeError):
        return None


def decode(body: bytes, content_type: str = "") -> tuple[str, str]:
    """The text of a page and the codec that it was read with. Never raises.

    A codec counts only where it decodes every byte. Valid UTF-8 beyond ASCII is UTF-8 whatever
    one-byte encoding a server's default declares. Without a codec that fits: detection, then replacement.
    """
    for mark, name in _MARKS:
        if body.startswith(mark):
            return body.decode(name, "replace"), name
    names = declared(body, content_type)
    if "iso2022_jp" in names and b"\x1b$" in body:  # its bytes are ASCII, so any other codec would seem to fit
        names = ["iso2022_jp"]
    unicode = None if body.isascii() else _strict(body, "utf-8")
    for name in names:
        if unicode is not None and _ONE_BYTE.match(name):
            return unicode, "utf-8"
        text = _strict(body, name)
        if text is not None:
            return text, name
    text = unicode if unicode is not None else _strict(body, "utf-8")
    if text is not None:
        return text, "utf-8"
    guess = _detected(body)
    text = _strict(body, guess)
    if text is not None and not names:
        return text, guess
    best = names[0] if names else guess
    return body.decode(best, "replace"), best


def _detected(body: bytes) -> str:
    """The codec that detection finds: the fast detector's where it decodes every byte, else the thorough one's."""
    quick = codec_of(detect_encoding(body))
    if quick and _strict(body, quick) is not None:
        return quick
    best = from_bytes(body[:_DETECTED_FROM]).best()
    return codec_of(best.encoding if best else None) or quick or "utf-8"
