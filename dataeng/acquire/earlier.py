"""What an earlier visit of a crawl holds, so that an unchanged page is not stored, or even sent, again."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from dataeng import storage, warc
from dataeng.acquire.fetch import Exchange
from dataeng.acquire.frontier import Frontier, Seen
from dataeng.extract.payload import message_of
from dataeng.warc import Capture

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_HEAD_BYTES = 512 << 10  # of a record beyond its body


def remember(frontier: Frontier, paths: Iterable[str]) -> int:
    """Note the pages (status 200, whole) of published capture files, later files last; how many there are."""
    count = 0
    for path in paths:
        for item in warc.read(path):
            if not isinstance(item, Capture) or item.type != "response" or "warc-truncated" in item.headers:
                continue
            message, digest = message_of(item), item.headers.get("warc-payload-digest")
            if message.status == 200 and digest and item.url:
                etag, modified = (message.headers.get(name, "") for name in ("etag", "last-modified"))
                place = (path, item.offset, item.length)
                frontier.note_earlier(
                    item.url, Seen(digest, etag, modified, item.date or "", item.record_id or "", *place)
                )
                count += 1
    return count


def question(seen: Seen | None) -> dict[str, str]:
    """The headers that ask for a page only if it is no longer what was seen."""
    if seen is None:
        return {}
    asked = {"If-None-Match": seen.etag, "If-Modified-Since": seen.modified}
    return {name: value for name, value in asked.items() if value}


def page(url: str, seen: Seen, most: int) -> Exchange | None:
    """The page as it was seen, for its links; None where its record cannot be read any more."""
    try:
        packed = storage.read_bytes(seen.path, seen.start, seen.length)
        data = zlib.decompressobj(31).decompress(packed, most + _HEAD_BYTES)
    except (OSError, zlib.error):
        return None
    blank = _BLANK_LINE.search(data)
    if blank is None:
        return None
    message = message_of(Capture(seen.path, seen.start, seen.length, "response", {}, data[blank.end() :]))
    body = message.body.removesuffix(b"\r\n\r\n")
    return Exchange(url, seen.date, [], "", 200, "", list(message.headers.items()), body)
