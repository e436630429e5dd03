"""Files of a checkpoint in any storage: hashed while they are written, verified while they are read.

No file is held in memory. What is written is hashed and sent as it comes, on S3 too; what is read from there passes
through a temporary file, since torch wants to seek in it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch.distributed.checkpoint.filesystem import FileSystem

from dataeng import storage

_CHUNK = 8 << 20


class Damaged(Exception):
    """A checkpoint's bytes are not those that were written."""


@dataclass(frozen=True)
class Part:
    """A file of a checkpoint: its size in bytes and BLAKE2b-128."""

    name: str
    size: int
    hash: str


class _Hashed(io.BufferedIOBase):
    """What is written goes to a file and into a hash."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.state, self.size = file, hashlib.blake2b(digest_size=16), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.state.update(data)
        self.file.write(data)
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self.closed:
            self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


class HashedFiles(FileSystem):
    """The files of one attempt in ``folder``; ``known`` are those of its manifest, where it is read.

    ``close`` takes away what stands in the temporary folder.
    """

    def __init__(self, folder: str, known: dict[str, Part] | None = None) -> None:
        self.folder, self.known = folder, known or {}
        self.written: dict[str, Part] = {}
        self.verified: dict[str, Path] = {}
        self.temporary = tempfile.TemporaryDirectory(prefix="millrace-checkpoint-")

    def close(self) -> None:
        """Take away temporary files."""
        self.temporary.cleanup()

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        """A stream to read from, its bytes verified, or one to write to, kept when closed."""
        name = Path(path).name.removesuffix(".tmp")
        if "r" in mode:
            with open(self.verify(name), "rb") as source:
                yield source  # type: ignore[misc]
            return
        with storage.write_stream(storage.join(self.folder, name)) as file:
            stream = _Hashed(file)
            yield stream
        self.written[name] = Part(name, stream.size, stream.state.hexdigest())

    def verify(self, name: str) -> Path:
        """The file on a local disk once its bytes are those of the manifest; raises Damaged where they are not."""
        if name in self.verified:
            return self.verified[name]
        path, part = storage.join(self.folder, name), self.known[name]
        local = Path(self.temporary.name, name) if storage.is_s3(path) else Path(path)
        state, size = hashlib.blake2b(digest_size=16), 0
        with storage.open_stream(path) as source, open(local if storage.is_s3(path) else os.devnull, "wb") as copy:
            while data := source.read(_CHUNK):
                state.update(data)
                size += len(data)
                copy.write(data)
        if size != part.size or state.hexdigest() != part.hash:
            raise Damaged(f"{path}: its bytes are not those of the manifest")
        self.verified[name] = local
        return local

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether this attempt wrote (or its manifest names) a file."""
        return Path(path).name in self.known or Path(path).name in self.written

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Nothing to do: writing makes folders."""

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Nothing to do: a file gets its last name when written."""

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Nothing to do: an attempt's folder is new."""
