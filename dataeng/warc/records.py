"""Records out of text: which bytes are a record, by what its length, its digest and its frame's checksum say.

A record *fits* where its Content-Length leads to what stands behind a record. What vouches for its bytes is
the checksum of the frame that it ends in or, without one, its WARC-Block-Digest. Vouched bytes are the
writer's: a length that leads nowhere is then his mistake, and the block goes on to the next record. Bytes
that nothing vouches for are taken where they fit, and are damage where they do not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from dataeng.warc.containers import BYTES, CUT_SHORT, SOUND, WHOLE, Container
from dataeng.warc.headers import Grammar, Head
from dataeng.warc.items import CAPTURES, Capture, Damage, Item, Skipped
from dataeng.warc.text import LOOK, Text

_DIGESTS = {"sha1": "sha1", "sha-1": "sha1", "sha256": "sha256", "sha-256": "sha256", "md5": "md5", "sha512": "sha512"}
_MOST_TRIED = 100  # frames in which a length past the bound was found to be wrong
_HEAD, _END, _AFTER = "head", "end", "after"
_BOMB = 16  # times the largest record: more text than that in one record is not worth inflating


def agrees(named: str | None, data: bytes) -> bool | None:
    """Whether data have the digest that a header names (base 32, base 64 or hexadecimal); None where it names none."""
    algorithm, _, value = (named or "").partition(":")
    name, value = _DIGESTS.get(algorithm.strip().lower()), value.strip().rstrip("=")
    if not name:
        return None
    found = hashlib.new(name, data, usedforsecurity=False).digest()
    by_32 = base64.b32encode(found).decode().rstrip("=")
    by_64 = base64.urlsafe_b64encode(found).decode().rstrip("=")
    if len(value) not in (2 * len(found), len(by_32), len(by_64)):
        return None
    return value.lower() in (found.hex(), by_32.lower()) or value.replace("+", "-").replace("/", "_") == by_64


class _Start(NamedTuple):
    """Where an item begins: offset in the file, which one of its frame it is, and its position in the text."""

    offset: int
    number: int
    position: int


class _Again(NamedTuple):
    """Where text that was passed over in vain is read once more: a frame, its records so far, bytes to skip."""

    offset: int
    records: int
    skip: int


class Reader:
    """The items of one file; what its runs share: the region being passed over, and the format once it is known."""

    def __init__(self, file: str, container: Container, grammar: Grammar, most: int) -> None:
        self.file, self.container, self.grammar, self.most = file, container, grammar, most
        self.lost: tuple[_Start, str] | None = None
        self.again: _Again | None = None
        self.distrusted: set[int] = set()

    def run(self, text: Text) -> Iterator[Item]:
        """The items of a run of frames. ``again`` is set where another run must begin before this one's end."""
        while True:
            if not self.lost and self.container.by_the_book and text.at_bound():
                yield from self._by_the_book(text)
            if not text.skip_blank():
                break
            head = text.head(self.grammar)
            if head is None:
                self._lose(text, self._start(text, text.position), BYTES)
                found = text.seek(self.grammar, text.position + 1)
                text.position = text.stop if found is None else found
                continue
            start, lost = self._start(text, text.position), self.lost
            if lost and not (self._is_inside(lost[0], start) and text.problem):
                yield self._damage(text, start)
            item = self._record(text, head, start)
            if item is not None:
                if self.lost:
                    yield self._damage(text, start)
                yield item
            if self.again:
                return
        if text.problem and not self.lost:
            frame = text.frames[-1]
            self._lose(text, _Start(frame.offset, frame.count, text.stop), text.problem)

    def _by_the_book(self, text: Text) -> Iterator[Item]:
        """The members that each hold one whole record and nothing else: a shorter way to the same items."""
        file, parse, whole, after = self.file, self.grammar.parse, self.container.whole, self.grammar.after
        while found := whole(text.reached):
            data, end = found
            head = parse(data, 0)
            if head is None or head.length is None or head.length > self.most:
                break
            stop = head.size + head.length
            if len(data) != stop + len(after) or not data.endswith(after):
                break
            offset = text.reached
            text.reached = end
            kind = head.kind
            if kind in CAPTURES:
                yield Capture(file, offset, end - offset, kind, head.headers, data[head.size : stop])
            else:
                yield Skipped(file, offset, end - offset, kind)

    def end(self, size: int) -> Iterator[Item]:
        """The damage that reaches to the file's end."""
        if self.lost:
            start, reason = self.lost
            yield Damage(self.file, start.offset, size - start.offset, reason, start.number)

    def _start(self, text: Text, position: int) -> _Start:
        if self.container.exact:
            return _Start(position, 0, position)
        frame = text.frame_at(position)
        return _Start(frame.offset, frame.count, position)

    def _is_inside(self, lost: _Start, start: _Start) -> bool:
        """Whether an item begins in the very frame in which something was lost."""
        return start.offset == lost.offset and not self.container.exact

    def _lose(self, text: Text, start: _Start, reason: str) -> None:
        """Begin a region of damage, unless one is going on; it counts as one item of its frame."""
        if not self.lost:
            self.lost = start, text.problem or reason
            if not self.container.exact:
                text.frame_at(min(start.position, text.stop)).count += 1

    def _damage(self, text: Text, next_start: _Start) -> Damage:
        """The region passed over, now that its end is known."""
        assert self.lost
        (start, reason), self.lost = self.lost, None
        end = next_start.offset
        if self._is_inside(start, next_start):
            end = text.reached
        return Damage(self.file, start.offset, end - start.offset, reason, start.number)

    def _length(self, text: Text, start: _Start, end: int) -> int:
        if self.container.exact:
            return end - start.offset
        frame = text.frame_at(max(end - 1, start.position))
        return (text.reached if frame.end is None else frame.end) - start.offset

    def _item(self, text: Text, head: Head, start: _Start, end: int) -> Item:
        """The record whose block ends at ``end``; reading goes on there."""
        length, kind = self._length(text, start, end), head.kind
        if not self.container.exact:
            text.frame_at(start.position).count += 1
        text.position = end
        if kind in CAPTURES:
            block = text.data[start.position + head.size - text.base : end - text.base]
            return Capture(self.file, start.offset, length, kind, head.headers, block, start.number)
        return Skipped(self.file, start.offset, length, kind, start.number)

    def _record(self, text: Text, head: Head, start: _Start) -> Item | None:
        """The record at the text's position, or None where it is lost or text must be read again."""
        content = start.position + head.size
        if head.length is None:
            return self._without_length(text, head, start)
        if head.length > self.most:
            return self._oversize(text, head, start)
        end = content + head.length
        if not text.need(end, self.grammar):
            return self._without_length(text, head, start)
        fit = self._fit(text, end)
        if not fit:
            return self._without_length(text, head, start)
        frame = text.frame_at(max(end - 1, start.position))
        if fit != _AFTER and frame.state == WHOLE:
            return self._item(text, head, start, end)
        agreed = agrees(head.headers.get("warc-block-digest"), text.data[content - text.base : end - text.base])
        line_end = end + len(self.grammar.after)  # a line that opens a record may end with what seems to follow one
        doubtful = fit == _AFTER and self._next_line(text.data, content - text.base, line_end - text.base) >= 0
        if not agreed and (doubtful or frame.state == WHOLE):
            return self._without_length(text, head, start)
        if agreed is None and frame.state != SOUND and not self.container.exact:
            # A frame that is broken or may be: what stands alone in it was hit, what others stand beside may be whole.
            agreed = frame.many or fit == _HEAD
        if agreed is False:
            return self._without_length(text, head, start)
        frame.many |= fit == _HEAD
        return self._item(text, head, start, end)

    def _fit(self, text: Text, end: int) -> str:
        """What stands behind ``end`` that may stand behind a record: another one, the frame's end, line ends."""
        rest, ends = text.behind(end)
        bare = rest.lstrip(b"\r\n")
        whole = len(rest) == LOOK or self.grammar.opens(bare, 0)  # not what the text's end cut off
        if bare and whole and self.grammar.may_open(bare):
            return _HEAD  # some writers leave out the line ends
        if bare.strip(b"\0"):
            return _AFTER if rest.startswith(self.grammar.after) else ""
        return _END if ends or len(rest) == LOOK else ""

    def _without_length(self, text: Text, head: Head, start: _Start) -> Item | None:
        """A record whose length is missing or leads nowhere: up to the next one, if something vouches for that."""
        content = start.position + head.size
        frame = text.frame_at(start.position)
        if frame.state == WHOLE and frame.stop is not None and content <= frame.stop:
            return self._vouched(text, head, start, frame.stop)
        found = text.seek(self.grammar, content, keep=self.most)
        stop = text.stop if found is None else found
        if text.position != start.position:
            self._lose(text, start, "too long")
            text.position = stop
            return None
        end = self._block_end(text, content, stop)
        agreed = agrees(head.headers.get("warc-block-digest"), text.data[content - text.base : end - text.base])
        if agreed is None and head.length is None:
            doubtful = frame.state != SOUND and not self.container.exact
            agreed = frame.many if doubtful else found is not None or end < stop
        if agreed:
            return self._item(text, head, start, end)
        self._lose(text, start, CUT_SHORT if found is None else BYTES)
        text.position = stop
        return None

    def _vouched(self, text: Text, head: Head, start: _Start, stop: int) -> Item | None:
        """The same in a frame whose checksum holds, which ends at ``stop``."""
        content = start.position + head.size
        found = self._next_line(text.data, content - text.base, stop - text.base)
        last = text.base + found if found >= 0 else stop
        end = self._block_end(text, content, last)
        fits_in = head.length is None or content + head.length <= stop
        alone = stop < text.stop or (text.ended and not text.problem)  # what follows is no part of it
        if end - content > self.most:
            self._lose(text, start, "too long")
            text.position = last
            return None
        if found >= 0 or end < last or fits_in or alone:
            return self._item(text, head, start, end)
        self._lose(text, start, CUT_SHORT)
        text.position = last
        return None

    def _next_line(self, data: bytes, start: int, stop: int) -> int:
        """Where the next line is that opens a record, or -1: in sound bytes none begins within a line."""
        while (found := self.grammar.find(data, start, stop)) > start and data[found - 1] != 10:
            start = found + 1
        return found

    def _block_end(self, text: Text, content: int, stop: int) -> int:
        """Where a block ends that what follows a record separates from ``stop``."""
        tail = text.data[max(content, stop - 4) - text.base : stop - text.base]
        for blank in (self.grammar.after, b"\n\n", b"\r\n", b"\n"):
            if tail.endswith(blank):
                return stop - len(blank)
        return stop

    def _oversize(self, text: Text, head: Head, start: _Start) -> Item | None:
        """A record that claims more than ``most`` bytes: passed over, if its length leads to a record's end."""
        content = start.position + head.size
        end = content + (head.length or 0)
        if self.container.exact:
            if end <= self.container.size and self._fits_in_file(end):
                text.jump(end)
                return self._passed(head, start, end - start.offset)
        elif (frame := text.frame_ends_within(start.position, self.most)) and frame.end and frame.stop:
            if end > frame.stop or self._fit(text, end) in ("", _AFTER):
                return self._without_length(text, head, start)
            text.position = end
            return self._passed(head, start, frame.end - start.offset)
        elif self._trusted(start) and (length := self._pass_over(text, start, content, end)):
            return self._passed(head, start, length)
        if not self.again:
            found = text.seek(self.grammar, max(content, text.position))
            text.position = text.stop if found is None else found
        self._lose(text, start, CUT_SHORT if text.ended and not self.again else BYTES)
        return None

    def _fits_in_file(self, end: int) -> bool:
        rest = self.container.window.bytes_at(end, LOOK)
        bare = rest.lstrip(b"\r\n\0")
        return not bare or self.grammar.may_open(bare) or rest.startswith(self.grammar.after)

    def _passed(self, head: Head, start: _Start, length: int) -> Item:
        kind = head.kind
        if kind in CAPTURES:
            return Damage(self.file, start.offset, length, "too long", start.number)
        return Skipped(self.file, start.offset, length, kind, start.number)

    def _trusted(self, start: _Start) -> bool:
        """Whether a great length is tried: once in a frame, and not for ever in a file that lies."""
        return start.offset not in self.distrusted and len(self.distrusted) < _MOST_TRIED

    def _pass_over(self, text: Text, start: _Start, content: int, end: int) -> int | None:
        """Go past a block's text without keeping it. Its length in the file, or None where it does not fit.

        Then ``again`` names the first place inside where a record may begin.
        """
        first: _Again | None = None
        text.frame_at(start.position).count += 1
        frames = text.frames[-1]
        while True:
            found = text.first_record(self.grammar, max(content, text.position))
            if found is not None and found < end and first is None:
                frame = text.frame_at(found)
                first = _Again(frame.offset, frame.count, found - frame.start)
                if found == frame.start:
                    break
            text.position = max(text.position, min(text.stop - LOOK, end))
            if text.stop >= end or text.stop - content > _BOMB * self.most:
                break
            if not text.pull():
                break
        frames = text.frames[-1]
        if text.stop >= end and (first is None or first.skip):
            text.position = end
            if self._fit(text, end) not in ("", _AFTER):
                return (text.reached if frames.end is None else frames.end) - start.offset
        self.distrusted.add(start.offset)
        self.again = first
        if first is None and text.stop < end and not text.ended:
            text.give_up()
        return None
