"""The text of neighbouring frames, read forward: what is buffered, and which frames of the file it came from."""

from __future__ import annotations

from collections.abc import Iterator

from dataeng.warc.containers import GOING_ON, SOUND, WHOLE, Container, Piece
from dataeng.warc.headers import LONGEST_HEADER, Grammar, Head

LOOK = 64  # bytes behind a record that tell whether it may end there


class Frame:
    """A frame of the file: offsets of its bytes, positions of its text (ends once known), its records so far.

    ``many``: one of them was followed by another in this frame.
    """

    __slots__ = ("count", "end", "many", "offset", "start", "state", "stop")

    def __init__(self, offset: int, start: int) -> None:
        self.offset, self.start, self.state, self.count = offset, start, GOING_ON, 0
        self.many = False
        self.end: int | None = None
        self.stop: int | None = None


class Text:
    """A run of frames without a break. Positions count the bytes of its text; in a plain file they are offsets.

    A run ends with the file or at a frame that is broken; ``problem`` then says how, and that frame is the last.
    """

    def __init__(self, container: Container, offset: int) -> None:
        self.container, self.reached = container, offset
        self.position = self.base = offset if container.exact else 0
        self.data = b""
        self.frames: list[Frame] = []
        self.pieces: Iterator[Piece] | None = None
        self.ended = False
        self.problem: str | None = None

    @property
    def stop(self) -> int:
        """Where the buffered text ends."""
        return self.base + len(self.data)

    def _next(self, stop: int) -> bytes | None:
        """The next piece's text, which begins at ``stop``; None at the run's end."""
        if self.pieces is None:
            self.reached = self.container.skip_padding(self.reached)
            if self.ended or self.reached >= self.container.size:
                self.ended = True
                return None
            self.frames.append(Frame(self.reached, stop))
            self.pieces = self.container.open(self.reached)
        data, self.reached, state = next(self.pieces)
        if state:
            frame = self.frames[-1]
            frame.state, frame.stop, frame.end, self.pieces = state, stop + len(data), self.reached, None
            if state not in (WHOLE, SOUND):
                self.ended, self.problem = True, state
        return data

    def _let_go(self) -> None:
        if self.position > self.base:
            self.data = self.data[self.position - self.base :]
            self.base = self.position
            while len(self.frames) > 1 and self.frames[1].start <= self.position:
                del self.frames[0]

    def pull(self, wanted: int = 1, grammar: Grammar | None = None) -> bool:
        """Buffer so many bytes more (one piece at least), letting go of what is behind the position.

        Stops before them at the run's end and, with a grammar, where a frame begins with a record. False
        where nothing more came.
        """
        if self.ended and self.pieces is None:
            return False
        self._let_go()
        begun, stop = self.stop, self.stop + wanted
        parts = [self.data] if self.data else []
        position, frames = begun, len(self.frames)
        data: bytes | None = b""
        while position < stop and (data := self._next(position)) is not None:
            parts.append(data)
            position += len(data)
            if grammar and len(self.frames) > frames and grammar.opens(data, 0):
                break
            frames = len(self.frames)
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        return position > begun

    def need(self, stop: int, grammar: Grammar) -> bool:
        """Buffer up to ``stop``, if no frame begins before with a record and the run does not end."""
        missing = stop - self.stop
        if missing > 0:
            # More than is missing: many small steps with a large buffer would copy it each time.
            self.pull(missing + (self.stop - self.position) // 4, grammar)
        return self.stop >= stop

    def at_bound(self) -> bool:
        """Whether nothing but line ends of what was buffered is left and the next byte begins a frame."""
        if self.pieces is not None or self.ended or self.stop - self.position > LOOK:
            return False
        return not self.data[self.position - self.base :].strip(b"\r\n")

    def frame_at(self, position: int) -> Frame:
        """The frame whose text holds a position that is buffered."""
        for frame in reversed(self.frames):
            if frame.start <= position:
                return frame
        return self.frames[0]

    def frame_ends_within(self, position: int, most: int) -> Frame | None:
        """The frame that holds a position, if it ends after at most so many bytes; they are buffered then."""
        frame = self.frame_at(position)
        while frame.stop is None and self.stop - position <= most:
            if not self.pull((self.stop - self.position) // 4 + 1):
                break
        return None if frame.stop is None else frame

    def behind(self, position: int) -> tuple[bytes, bool]:
        """Up to LOOK bytes from ``position`` on, of the frame of what is before, and whether it ends with them."""
        frame = self.frame_at(position - 1)
        while frame.stop is None and self.stop < position + LOOK:
            if not self.pull():
                break
        stop = min(position + LOOK, self.stop if frame.stop is None else frame.stop)
        rest = self.data[position - self.base : stop - self.base]
        if stop != frame.stop or not rest.strip(b"\r\n\0"):
            return rest, stop == frame.stop
        while self.stop < position + LOOK and self.pull():  # what begins at this frame's end goes on in the next
            pass
        return self.data[position - self.base : position - self.base + LOOK], False

    def skip_blank(self) -> bool:
        """Go past line ends and zeros; False at the run's end."""
        while True:
            start = self.position - self.base
            rest = self.data[start : start + 512]
            blank = len(rest) - len(rest.lstrip(b"\r\n\0"))
            self.position += blank
            if blank < len(rest):
                return True
            if self.position >= self.stop and not self.pull():
                return False

    def head(self, grammar: Grammar) -> Head | None:
        """The header that begins at the position, or None where there is none that ends in time."""
        while True:
            start = self.position - self.base
            found = grammar.parse(self.data, start)
            if found or len(self.data) - start >= LONGEST_HEADER:
                return found
            if not grammar.may_open(self.data[start : start + LOOK]) or not self.pull():
                return None

    def seek(self, grammar: Grammar, start: int, keep: int = 0) -> int | None:
        """The first position from ``start`` on where a record may begin.

        Nothing before the position is let go of. What lies behind it is kept up to ``keep`` bytes, then the
        position moves on. None at the run's end.
        """
        while True:
            found = self.first_record(grammar, start)
            if found is not None:
                return found
            line = self.data.rfind(b"\n", max(start - self.base, 0)) + 1  # a header may be cut by the buffer's end
            start = max(start, min(self.base + line, self.stop - LOOK), self.stop - LONGEST_HEADER)
            if start - self.position > keep:
                self.position = start
            if not self.pull((self.stop - self.position) // 4 + 1):
                return None

    def first_record(self, grammar: Grammar, start: int) -> int | None:
        """The first position from ``start`` on, of what is buffered, where a record may begin."""
        found = grammar.find(self.data, max(start - self.base, 0), len(self.data))
        places = [self.base + found] if found >= 0 else []
        begun = [frame.start for frame in self.frames if frame.start >= start]
        places += [place for place in begun if grammar.opens(self.data, place - self.base)]
        return min(places, default=None)

    def jump(self, position: int) -> None:
        """Go on at another position of a plain file."""
        self.position = self.base = self.reached = position
        self.data, self.pieces = b"", self.container.open(position)

    def give_up(self) -> None:
        """End the run in the middle of a frame that holds more than is worth inflating."""
        self.frames[-1].state = self.problem = "too long"
        self.ended, self.pieces = True, None
        self.frames[-1].stop, self.frames[-1].end = self.stop, self.reached

    def skip(self, size: int) -> None:
        """Go past so many bytes of text."""
        target = self.position + size
        while self.position < target:
            self.position = min(target, self.stop)
            if self.position < target and not self.pull():
                break
