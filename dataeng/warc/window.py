"""A file on a disk or object storage, read forward in large pieces."""

from __future__ import annotations

from contextlib import ExitStack

from dataeng import storage

CHUNK = 1 << 20  # bytes that are read at once


class Window:
    """Random access to a file by large reads; going on is cheap, going back opens it again."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.path, self.stack = path, stack
        self.start, self.data = 0, b""
        found = storage.stat(path)
        if found is None:
            raise FileNotFoundError(path)
        self.size = found.size
        self.stream = stack.enter_context(storage.open_stream(path))

    def at(self, offset: int, least: int = 1) -> memoryview:
        """The bytes from ``offset`` on: at least ``least`` of them unless the file ends before."""
        if offset >= self.size:
            return memoryview(b"")
        end = self.start + len(self.data)
        if not self.start <= offset <= end:
            self.stack.close()
            self.stream = self.stack.enter_context(storage.open_stream(self.path, offset))
            self.start, self.data = offset, b""
        if self.start + len(self.data) - offset < least:
            parts = [self.data[offset - self.start :]]
            wanted = max(least - len(parts[0]), CHUNK)
            while wanted > 0 and (part := self.stream.read(wanted)):
                parts.append(part)
                wanted -= len(part)
            self.start, self.data = offset, b"".join(parts)
        return memoryview(self.data)[offset - self.start :]

    def some(self, offset: int, size: int) -> memoryview:
        """The same, ``size`` of them at most."""
        first = offset - self.start
        last = first + size
        if first < 0 or last > len(self.data):
            return self.at(offset, size)[:size]
        return memoryview(self.data)[first:last]

    def bytes_at(self, offset: int, size: int) -> bytes:
        """The ``size`` bytes at ``offset``, fewer where the file ends."""
        return bytes(self.some(offset, size))
