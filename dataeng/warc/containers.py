"""What holds records: gzip members, zstd frames, or nothing (plain). Each gives bytes inflated, with their place.

A container is read frame by frame: ``open`` inflates the frame at an offset piece by piece and says how it
ended; ``following`` finds the next place where a frame may begin after damage. How a file is cut into pieces
depends on its bytes alone, so that places do not differ between a disk and object storage.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from isal import isal_zlib

from dataeng.warc.window import CHUNK, Window

FEED = 16 << 10  # compressed bytes inflated at once: small, since what lies behind a member's end is copied
GOING_ON, WHOLE, SOUND, BYTES, CUT_SHORT = "", "whole", "sound", "bytes", "cut short"
_LARGE, _LARGE_TEXT = 1 << 20, 8 << 20  # bytes of a member and of its text past which it is read piece by piece
_MAGIC = b"\x1f\x8b\x08"
_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment] # the stub names an instance


class Piece(NamedTuple):
    """Inflated bytes, the offset in the file up to which it was read for them, and how the frame stands.

    WHOLE: ended, its checksum right. SOUND: ended without a checksum. BYTES, CUT_SHORT: broken.
    """

    data: bytes
    reached: int
    state: str


class Container(Protocol):
    """How a file's frames are read."""

    exact: bool  # whether positions in the text are offsets in the file
    by_the_book: bool  # whether ``whole`` is a shorter way to frames that hold one record
    size: int  # of the file
    window: Window

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """The whole frame at ``offset`` and where it ends; None where it is large, broken or none."""

    def skip_padding(self, offset: int) -> int:
        """The first place from ``offset`` on that is no padding between frames."""

    def open(self, offset: int) -> Iterator[Piece]:
        """The pieces of the frame at ``offset``; the last one says how it ended."""

    def begins(self, offset: int) -> bool:
        """Whether a frame may begin at ``offset``: its magic bytes, and a beginning that inflates."""

    def following(self, offset: int, within: int | None = None) -> int:
        """The first place from ``offset`` on where a frame may begin; else the file's end, or one past the bound."""


class Plain:
    """A file whose records are not compressed: one frame that nothing vouches for."""

    exact = True
    by_the_book = False

    def __init__(self, window: Window) -> None:
        self.window, self.size = window, window.size

    def skip_padding(self, offset: int) -> int:
        """The place itself."""
        return offset

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """Not for a file that is one frame."""
        return None

    def open(self, offset: int) -> Iterator[Piece]:
        """The file from ``offset`` on."""
        while data := self.window.bytes_at(offset, CHUNK):
            offset += len(data)
            yield Piece(data, offset, GOING_ON)
        yield Piece(b"", offset, SOUND)

    def begins(self, offset: int) -> bool:
        """Always: a record is looked for in the text."""
        return offset < self.window.size

    def following(self, offset: int, within: int | None = None) -> int:
        """The place itself."""
        return offset


def search(container: Container, magic: bytes, offset: int, within: int | None) -> int:
    """What ``following`` gives for a container whose frames begin with ``magic``."""
    last = container.size if within is None else offset + within
    while offset < last:
        data = bytes(container.window.at(offset, CHUNK))
        found = data.find(magic)
        if found >= 0:
            if container.begins(offset + found):
                return offset + found
            offset += found + 1
        elif len(data) < CHUNK:
            return offset + len(data)
        else:
            offset += len(data) - len(magic) + 1
    return offset


class Gzip:
    """Gzip members, one a record by the book; several records in one and one over several are read as well."""

    exact = False
    by_the_book = True

    def __init__(self, window: Window) -> None:
        self.window, self.size = window, window.size

    def skip_padding(self, offset: int) -> int:
        """Past the zeros that tapes and some writers leave."""
        while (head := self.window.bytes_at(offset, 1)) == b"\0":
            block = bytes(self.window.at(offset, CHUNK))
            offset += len(block) - len(block.lstrip(b"\0"))
        return offset if head else self.size

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """The whole member at ``offset`` and where it ends; None where it is large, broken or none."""
        parts: list[bytes] = []
        inflater, size = isal_zlib.decompressobj(31), 0
        position, last = offset, offset + _LARGE
        while position < last:
            fed = self.window.some(position, FEED)
            if not fed:
                return None
            position += len(fed)
            try:
                data = inflater.decompress(fed, _LARGE_TEXT - size)
            except _ERROR:
                return None
            if inflater.eof:
                end = position - len(inflater.unused_data)
                return (b"".join([*parts, data]), end) if parts else (data, end)
            parts.append(data)
            size += len(data)
            if size >= _LARGE_TEXT or inflater.unconsumed_tail:
                return None
        return None

    def open(self, offset: int) -> Iterator[Piece]:
        """The member at ``offset`` inflated; its checksum is the inflater's to verify."""
        inflater, position, given = isal_zlib.decompressobj(31), offset, 0
        while True:
            pending: bytes | memoryview = self.window.some(position, FEED)
            if not pending:
                yield Piece(b"", position, CUT_SHORT)
                return
            fed = position
            position += len(pending)
            while True:
                try:
                    data = inflater.decompress(pending, CHUNK)
                except _ERROR:
                    yield Piece(self._before_error(offset, fed, given), position, BYTES)
                    return
                if inflater.eof:
                    yield Piece(data, position - len(inflater.unused_data), WHOLE)
                    return
                if data:
                    given += len(data)
                    yield Piece(data, position, GOING_ON)
                pending = inflater.unconsumed_tail
                if not pending and len(data) < CHUNK:
                    break

    def _before_error(self, offset: int, fed: int, given: int) -> bytes:
        """What the member at ``offset`` gives past ``given`` bytes before the error in what was fed at ``fed``.

        An inflater keeps to itself what it made in the call that fails, so the steps grow smaller. zlib's gives
        every byte that the bytes fed so far determine; the fast one waits for more.
        """
        data, last = b"", fed + FEED
        for step in (FEED // 32, FEED // 1024, 1):
            inflater, position, size, parts = zlib.decompressobj(31), offset, 0, [data]
            while position < last and not inflater.eof:
                pending = self.window.some(position, min(FEED, fed - position) if position < fed else step)
                try:
                    part = inflater.decompress(pending)
                except zlib.error:
                    break
                if not pending:
                    break
                size += len(part)
                if size > given:
                    parts.append(part[given - size :])
                    given = size
                position += len(pending)
            data, fed = b"".join(parts), position
        return data

    def begins(self, offset: int) -> bool:
        """Whether a member's header stands at ``offset`` and the bytes behind it inflate."""
        head = self.window.some(offset, FEED)
        if head[:3] != _MAGIC or len(head) < 18 or head[3] & 0xE0:
            return False
        inflater = isal_zlib.decompressobj(31)
        try:
            return bool(inflater.decompress(head, 512)) or not inflater.eof
        except _ERROR:
            return False

    def following(self, offset: int, within: int | None = None) -> int:
        """The next member."""
        return search(self, _MAGIC, offset, within)
