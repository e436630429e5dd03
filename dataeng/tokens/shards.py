"""Token shards: ``shard-00000.bin`` (little-endian tokens) and ``shard-00000.idx.npy`` (documents' starts).

A source's shards are one stream of tokens, each document ended by the end-of-text token. Sample i is
tokens [iS, iS + S]: S inputs and the token after them; after the stream's last token comes its first.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydantic import BaseModel

from dataeng import storage


class Shard(BaseModel):
    """One shard: the path of its tokens below the stage's folder, and what is in it."""

    path: str
    tokens: int
    documents: int


class Source(BaseModel):
    """One source's stream in one split. ``samples`` = ⌊tokens / S⌋; ``remainder`` tokens are in none."""

    shards: list[Shard]
    tokens: int
    documents: int
    samples: int
    remainder: int


class Layout(BaseModel):
    """What a reader needs: the details of the manifest of the step `tokens`."""

    dtype: str
    vocabulary: int
    sample_tokens: int
    tokenizer: str  # the folder of the tokenizer's stage
    tokenizer_hash: str
    splits: dict[str, dict[str, Source]]

    def cut(self, split: str) -> dict[str, Any]:
        """How a split's stream becomes samples, which the hash of its shards does not tell: for fingerprints."""
        sources = {name: source.tokens for name, source in sorted(self.splits.get(split, {}).items())}
        return {"sample_tokens": self.sample_tokens, "sources": sources}


def type_for(vocabulary: int) -> str:
    """The smallest little-endian type that holds a vocabulary's ids."""
    return "<u2" if vocabulary <= 1 << 16 else "<u4"


class Writer:
    """Writes one source's stream, a new shard where one reaches ``shard_tokens`` at a document's end."""

    def __init__(self, folder: str, dtype: str, shard_tokens: int) -> None:
        self.folder, self.dtype, self.shard_tokens = folder, np.dtype(dtype), shard_tokens
        self.paths: list[str] = []
        self.shards: list[Shard] = []
        self._open()

    def _open(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 — closed by _close
        self.starts: list[int] = []
        self.filled = 0

    def add(self, tokens: np.ndarray) -> None:
        """Append one document's tokens, its end-of-text token among them."""
        if self.filled >= self.shard_tokens:
            self._close()
            self._open()
        self.starts.append(self.filled)
        self.file.write(np.ascontiguousarray(tokens, self.dtype).tobytes())
        self.filled += len(tokens)

    def _close(self) -> None:
        path = storage.join(self.folder, f"shard-{len(self.shards):05d}")
        with tempfile.TemporaryDirectory() as temporary, self.file:
            local = Path(temporary, "shard.bin")
            self.file.seek(0)
            with open(local, "wb") as copy:
                while chunk := self.file.read(8 << 20):
                    copy.write(chunk)
            storage.upload(local, f"{path}.bin")
        index = io.BytesIO()
        np.save(index, np.asarray(self.starts, "<u8"))
        storage.write_bytes(f"{path}.idx.npy", index.getvalue())
        self.paths += [f"{path}.bin", f"{path}.idx.npy"]
        self.shards.append(Shard(path=f"{path}.bin", tokens=self.filled, documents=len(self.starts)))

    def close(self, sample_tokens: int) -> Source:
        """End the stream; what was written comes back."""
        if self.starts or not self.shards:
            self._close()
        tokens = sum(shard.tokens for shard in self.shards)
        return Source(
            shards=self.shards,
            tokens=tokens,
            documents=sum(shard.documents for shard in self.shards),
            samples=tokens // sample_tokens,
            remainder=tokens % sample_tokens,
        )


class Stream:
    """Reads a source's stream by position. It can be pickled and holds no open file."""

    def __init__(self, folder: str, source: Source, dtype: str) -> None:
        self.folder, self.source, self.dtype = folder, source, np.dtype(dtype)
        self.starts = np.cumsum([0, *(shard.tokens for shard in source.shards)])

    def read(self, start: int, count: int) -> np.ndarray:
        """``count`` tokens from position ``start`` on, as int64; the stream is a ring."""
        parts: list[np.ndarray] = []
        start %= self.source.tokens
        while count > 0:
            index = int(np.searchsorted(self.starts, start, side="right")) - 1
            shard, inside = self.source.shards[index], start - int(self.starts[index])
            taken = min(count, shard.tokens - inside)
            size = self.dtype.itemsize
            data = storage.read_bytes(storage.join(self.folder, shard.path), inside * size, taken * size)
            if len(data) != taken * size:
                raise EOFError(f"{shard.path}: is shorter than its manifest says")
            parts.append(np.frombuffer(data, self.dtype).astype(np.int64))
            count -= taken
            start = (start + taken) % self.source.tokens
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def samples(self, indices: Sequence[int], sample_tokens: int, neighbours: int = 1) -> np.ndarray:
        """Samples (len(indices), S + 1) by index; those of one window of ``neighbours`` are read at once."""
        wanted = np.asarray(indices, np.int64)
        out = np.empty((len(wanted), sample_tokens + 1), np.int64)
        for window in np.unique(wanted // neighbours):
            rows = np.flatnonzero(wanted // neighbours == window)
            first, last = int(wanted[rows].min()), int(wanted[rows].max())
            tokens = self.read(first * sample_tokens, (last - first + 1) * sample_tokens + 1)
            for row in rows:
                begin = (int(wanted[row]) - first) * sample_tokens
                out[row] = tokens[begin : begin + sample_tokens + 1]
        return out


def open_split(folder: str, details: dict[str, Any], split: str) -> dict[str, Stream]:
    """A split's streams by source, sorted by name; sources without a whole sample are left out."""
    layout = Layout.model_validate(details)
    sources = layout.splits.get(split, {})
    return {n: Stream(folder, s, layout.dtype) for n, s in sorted(sources.items()) if s.samples}
