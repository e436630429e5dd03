"""What all kinds of ready text share: files inflated under bounds, their lines, and rows for what is in them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dataeng import storage
from dataeng.document import Document, Verdict, digest, text_id, to_dropped, to_row
from dataeng.extract.tidy import one_line, tidy
from dataeng.sources import Row

if TYPE_CHECKING:
    from dataeng.acquire.ingest import Config

_CHUNK = 1 << 20
Line = tuple[int, int, bytes | None]  # byte offset in the (inflated) file, length, content; None where too long


class Place(NamedTuple):
    """Where a text stands: the file's name, and bytes in it (inflated), or a row's number and no length."""

    file: str
    offset: int
    length: int | None


def inflated(path: str) -> Iterator[bytes]:
    """A file's bytes in pieces, inflated where it is gzip; raises zlib.error where that is damaged or cut short."""
    with storage.open_stream(path) as stream:
        if not path.endswith(".gz"):
            while piece := stream.read(_CHUNK):
                yield piece
            return
        inflater = zlib.decompressobj(31)
        while raw := stream.read(_CHUNK):
            while raw:
                if inflater.eof:
                    raw = raw.lstrip(b"\0")
                    inflater = zlib.decompressobj(31) if raw else inflater
                    if not raw:
                        break
                yield inflater.decompress(raw, _CHUNK)
                raw = inflater.unused_data or inflater.unconsumed_tail
        if not inflater.eof:
            raise zlib.error("cut short")


def lines(path: str, most: int) -> Iterator[Line]:
    """The lines of a file with their byte offsets; after damaged gzip bytes comes one last line None."""
    offset, size, held = 0, 0, list[bytes]()  # of the line that goes on: its place, bytes so far, and these
    try:
        for piece in inflated(path):
            for number, part in enumerate(piece.split(b"\n")):
                if number:
                    yield offset, size + 1, b"".join(held) if size <= most else None
                    offset, size, held = offset + size + 1, 0, []
                size += len(part)
                if size <= most:
                    held.append(part)
                else:
                    held.clear()
    except zlib.error:
        yield offset, size, None
        return
    if size:
        yield offset, size, b"".join(held) if size <= most else None


def whole(path: str, most: int) -> bytes | None:
    """A file's bytes; None where there are more than ``most``. Raises zlib.error where its gzip is damaged."""
    parts, size = [], 0
    for piece in inflated(path):
        parts.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(parts)


def field_of(value: Any) -> str | None:
    """A value as a short text, or None where it is empty."""
    return None if value is None else one_line(str(value)) or None


def kept(
    config: Config,
    place: Place,
    text: str,
    own_id: str | None = None,
    metadata: dict[str, Any] | None = None,
    url: Any = None,
    date: Any = None,
    language: Any = None,
) -> Row:
    """The row of a text, with the recipe's licence and date where it has none; dropped (``no_text``) if too short."""
    tidied = tidy(text)
    if len(tidied) < config.minimum_characters:
        return dropped("no_text", config, place, own_id)
    fields = {name: field_of(value) for name, value in (metadata or {}).items()}
    if not fields.get("licence"):
        fields["licence"] = config.licence
    document = Document(
        text_id(config.source, own_id, tidied),
        tidied,
        url=field_of(url),
        source=config.source,
        date=field_of(date) or config.date,
        language=field_of(language),
        metadata={name: value for name, value in fields.items() if value},
        **place._asdict(),
    )
    return to_row(document)


def dropped(rule: str, config: Config, place: Place, own_id: str | None = None) -> Row:
    """The row of what is no text, with the rule that says why."""
    metadata = {"own_id": own_id} if own_id else {}
    identifier = digest(f"{place.file}#{place.offset}")
    document = Document(identifier, None, source=config.source, metadata=metadata, **place._asdict())
    return to_dropped(document, "ingest", Verdict(False, rule))
