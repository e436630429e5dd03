"""What a capture file is read as: captures, other records, and the damage between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CAPTURES = ("response", "resource", "conversion")


@dataclass(slots=True)
class Capture:
    """A response, resource or conversion record. ``offset`` and ``length`` are bytes in the file.

    In a compressed file ``offset`` is that of the gzip member or zstd frame in which the record begins, and
    ``length`` reaches to where it was whole; ``index`` counts the records that begin in the same member.
    ``headers`` have lower-case names; ``block`` is the record's content as stored (the HTTP message of a
    response). A record of an ARC file has its header line's fields under the names that WARC gives them.
    """

    file: str
    offset: int
    length: int
    type: str
    headers: Mapping[str, str]
    block: bytes = field(repr=False)
    index: int = 0

    @property
    def record_id(self) -> str | None:
        """WARC-Record-ID, with its angle brackets."""
        return self.headers.get("warc-record-id")

    @property
    def url(self) -> str | None:
        """WARC-Target-URI without the angle brackets that old writers put around it."""
        target = self.headers.get("warc-target-uri")
        return target.strip().removeprefix("<").removesuffix(">") if target else None

    @property
    def date(self) -> str | None:
        """WARC-Date (ISO 8601, UTC)."""
        return self.headers.get("warc-date")


@dataclass(slots=True)
class Damage:
    """A region passed over: not readable as a record (``bytes``), ``cut short`` by the file's end, or ``too long``.

    ``index`` tells it apart from records that begin in the same gzip member or zstd frame.
    """

    file: str
    offset: int
    length: int
    reason: str
    index: int = 0


@dataclass(slots=True)
class Skipped:
    """A whole record of another type (request, warcinfo, metadata, revisit …)."""

    file: str
    offset: int
    length: int
    type: str
    index: int = 0


Item = Capture | Damage | Skipped
