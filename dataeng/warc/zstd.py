"""Captures compressed by zstd, with or without a dictionary in their first frame.

https://iipc.github.io/warc-specifications/specifications/warc-zstd/ and RFC 8878 for the frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from dataeng.warc.containers import BYTES, CUT_SHORT, GOING_ON, SOUND, WHOLE, Piece, search
from dataeng.warc.window import CHUNK, Window

MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5F
DICTIONARY = b"\x5d" + SKIPPABLE
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
_LARGEST_DICTIONARY = 64 << 20
_LARGEST_WINDOW = 128 << 20  # bytes of memory that a frame may ask for; what zstd's own tool allows
_LONGEST_FRAME_HEADER = 18
_RLE, _RESERVED = 1, 3


class Zstd:
    """Zstd frames, fed block by block: a block gives at most 128 KiB, so no frame is a bomb."""

    exact = False
    by_the_book = False

    def __init__(self, window: Window) -> None:
        self.window, self.size = window, window.size
        self.decompressor = self._decompressor()

    def skip_padding(self, offset: int) -> int:
        """The place itself: padding is a frame of its own kind."""
        return offset

    def _decompressor(self) -> zstandard.ZstdDecompressor:
        """A decompressor with the dictionary that stands in the file's first frame, if there is one."""
        head = self.window.bytes_at(0, CHUNK)
        at = head.find(DICTIONARY)
        while 0 <= at < len(head) - 8:
            size = int.from_bytes(head[at + 4 : at + 8], "little")
            data = self._dictionary(at + 8, size)
            try:
                if data is not None:
                    trained = zstandard.ZstdCompressionDict(data)
                    made = zstandard.ZstdDecompressor(dict_data=trained, max_window_size=_LARGEST_WINDOW)
                    made.decompressobj()  # raises where the dictionary is damaged
                    return made
            except zstandard.ZstdError:
                pass  # what the damage is counts with the frames that cannot be read
            at = head.find(DICTIONARY, at + 1)
        return zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)

    def _dictionary(self, offset: int, size: int) -> bytes | None:
        if size > _LARGEST_DICTIONARY:
            return None
        data = self.window.bytes_at(offset, size)
        if len(data) == size and data.startswith(MAGIC):
            try:
                plain = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
                data = plain.stream_reader(data).read(_LARGEST_DICTIONARY)
            except zstandard.ZstdError:
                return None
        return data if data.startswith(_DICTIONARY_MAGIC) else None

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """Not done: frames are read block by block."""
        return None

    def open(self, offset: int) -> Iterator[Piece]:
        """The frame at ``offset`` inflated; the checksum, where it has one, is verified."""
        head = self.window.bytes_at(offset, _LONGEST_FRAME_HEADER)
        if head[1:4] == SKIPPABLE:
            end = offset + 8 + int.from_bytes(head[4:8], "little")
            state = SOUND if len(head) >= 8 and end <= self.window.size else CUT_SHORT
            yield Piece(b"", min(end, self.window.size), state)
            return
        inflater, position = self.decompressor.decompressobj(), offset
        try:
            size, checksum = zstandard.frame_header_size(head), zstandard.get_frame_parameters(head).has_checksum
            inflater.decompress(head[:size])
            position += size
            last = False
            while not last:
                last, size = self._block(position)
                block = self.window.bytes_at(position, size)
                position += len(block)
                if len(block) < size:
                    yield Piece(inflater.decompress(block), position, CUT_SHORT)
                    return
                data = inflater.decompress(block)
                if data or not last:
                    yield Piece(data, position, GOING_ON)
            yield self._end(inflater, position, checksum)
        except zstandard.ZstdError:
            yield Piece(b"", position, CUT_SHORT if position >= self.window.size else BYTES)

    def _block(self, position: int) -> tuple[bool, int]:
        """Whether the block at ``position`` is its frame's last one, and its size with its header."""
        head = int.from_bytes(self.window.bytes_at(position, 3), "little")
        kind, size = head >> 1 & 3, head >> 3
        if kind == _RESERVED:
            raise zstandard.ZstdError("a block of the reserved type")
        return bool(head & 1), 3 + (1 if kind == _RLE else size)

    def _end(self, inflater: zstandard.ZstdDecompressionObj, position: int, checksum: bool) -> Piece:
        if checksum:
            trailer = self.window.bytes_at(position, 4)
            inflater.decompress(trailer)
            position += len(trailer)
            if len(trailer) < 4:
                return Piece(b"", position, CUT_SHORT)
        return Piece(b"", position, (WHOLE if checksum else SOUND) if inflater.eof else BYTES)

    def begins(self, offset: int) -> bool:
        """Whether a frame header stands at ``offset`` and its first block inflates."""
        head = self.window.bytes_at(offset, 4)
        if head[1:] == SKIPPABLE and head[0] >> 4 == 5:
            return offset + 8 + int.from_bytes(self.window.bytes_at(offset + 4, 4), "little") <= self.size
        return head == MAGIC and next(self.open(offset)).state in (GOING_ON, WHOLE, SOUND)

    def following(self, offset: int, within: int | None = None) -> int:
        """The next frame that holds data, or that holds a dictionary."""
        found = search(self, MAGIC, offset, within)
        return min(found, search(self, DICTIONARY, offset, found - offset))
