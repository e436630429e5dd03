"""Captures read as a stream that survives damage: no record whose own bytes are intact is lost.

WARC/1.0 and 1.1 (ISO 28500) and ARC versions 1 and 2; plain, in gzip members or in zstd frames. FastWARC,
warcio and datatrove give up at the first bad member; here reading goes on at the next place where one may
begin, and each region passed over is reported with its place. Memory is bounded by ``LARGEST_RECORD``
whatever a length field claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from dataeng.warc.containers import Container, Gzip, Plain
from dataeng.warc.headers import ARC, WARC, grammar_of
from dataeng.warc.items import CAPTURES, Capture, Damage, Item, Skipped
from dataeng.warc.records import Reader, agrees
from dataeng.warc.text import Text
from dataeng.warc.window import CHUNK, Window
from dataeng.warc.zstd import Zstd

__all__ = ["CAPTURES", "LARGEST_RECORD", "Capture", "Damage", "Item", "Skipped", "agrees", "read"]

LARGEST_RECORD = 64 << 20  # bytes of one record, inflated
_MOST_INSIDE = 16  # frames tried inside the bytes of broken ones before reading goes on behind those


def _container(window: Window) -> Container:
    """How a file is compressed: by its first bytes and, where they do not say, by what follows, then by its name."""
    gzip = Gzip(window)
    if gzip.begins(0):
        return gzip
    zstd = Zstd(window)
    if zstd.begins(0):
        return zstd
    head, name = window.bytes_at(0, 16), window.path.lower()
    if head.startswith(b"WARC/") and not name.endswith((".gz", ".zst")):
        return Plain(window)
    known = zstd if name.endswith(".zst") else gzip
    seen = [container for container in (known, zstd if known is gzip else gzip) if _frames(container)]
    for container in seen:
        if _frames(container, holding_records=True):
            return container
    text = window.bytes_at(0, CHUNK)
    if (known in seen and name.endswith((".gz", ".zst"))) or grammar_of(text, name).find(text, 0, len(text)) < 0:
        return known if name.endswith((".gz", ".zst")) else Plain(window)
    return Plain(window)


def _frames(container: Container, holding_records: bool = False) -> bool:
    """Whether a frame seems to begin in a file's first bytes, or one that opens with a record."""
    end, place = min(CHUNK, container.size), -1
    while (place := container.following(place + 1, CHUNK)) < end:
        data = next(container.open(place)).data
        if not holding_records or any(grammar.opens(data, 0) for grammar in (WARC, ARC)):
            return True
    return False


def read(path: str, file: str | None = None, most: int = LARGEST_RECORD) -> Iterator[Item]:
    """All records of a capture file in order, and the damage between them.

    ``file`` is the name that items carry (by default the path). ``most`` bounds one record's bytes.
    Raises FileNotFoundError, or the storage's errors; nothing that stands in the file raises.
    """
    with ExitStack() as stack:
        window = Window(path, stack)
        container = _container(window)
        yield from _items(file or path, path, container, most)


def _items(file: str, path: str, container: Container, most: int) -> Iterator[Item]:
    """The items of all runs of frames: a run ends where a frame is broken, the next begins at the next frame."""
    text = Text(container, 0)
    text.pull()
    reader = Reader(file, container, grammar_of(text.data, path), most)
    horizon, tried = 0, 0
    while True:
        yield from reader.run(text)
        if reader.again:
            offset, count, skip = reader.again
            reader.again = None
            text = Text(container, offset)
            text.pull()
            text.frames[0].count = count
            text.skip(skip)
            continue
        if not text.problem:
            break
        broken = text.frames[-1].offset
        tried = 0 if broken >= horizon else tried + 1
        horizon = max(horizon, text.reached)
        text = Text(container, container.following(broken + 1 if tried < _MOST_INSIDE else horizon))
    yield from reader.end(container.size)
