"""A linear classifier over hashed n-grams, as small and as quick as a quantised fastText model, and often better.

The features of a line are its words, its pairs of words, and every n-gram of 3 to 5 characters within
``<word>``, hashed into one table of weights (Weinberger et al. 2009, "Feature hashing"). The log-odds are
the sum of their weights divided by a power of their number, plus a bias. fastText averages its n-grams
(power 1), so that one word of abuse drowns in a comment; a lower power lets it be heard.

File (``.npz``): ``weights`` (int8, a power of two of them), ``scale`` (of the weights), ``bias``, ``power`` and
``labels`` (negative, positive).
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from dataeng import storage
from dataeng.cli import UserError

SHORTEST, LONGEST = 3, 5  # n-grams of characters
_SEED = 0x5EED
_PAIR = np.uint32(0x9E3779B1)
_FIELDS = {"weights", "scale", "bias", "power", "labels"}


def word_hash(word: str) -> int:
    """The 32-bit hash of a word, of which those of pairs are made."""
    return zlib.crc32(word.encode(), _SEED)


def word_features(word: str, bits: int) -> np.ndarray:
    """The features (int64, below ``2**bits``) of one word: itself and its n-grams of characters, each once."""
    marked = f"<{word}>"
    grams = {
        marked[start : start + size] for size in range(SHORTEST, LONGEST + 1) for start in range(len(marked) - size + 1)
    }
    hashes = [word_hash(word), *(zlib.crc32(gram.encode()) for gram in sorted(grams))]
    return _places(np.array(hashes, np.uint32), bits)


def pair_features(hashes: np.ndarray, bits: int) -> np.ndarray:
    """The features of each two words in a row, from the words' hashes (uint32)."""
    return _places(hashes[:-1] * _PAIR + hashes[1:], bits)


def _places(hashes: np.ndarray, bits: int) -> np.ndarray:
    """The upper bits of well-mixed hashes: CRC-32 alone spreads short strings poorly."""
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(0x85EBCA6B)
    hashes = hashes ^ (hashes >> np.uint32(13))
    return (hashes >> np.uint32(32 - bits)).astype(np.int64)


class Linear:
    """A model of two labels; what it knows of a word is remembered, as words return."""

    def __init__(self, weights: np.ndarray, scale: float, bias: float, power: float, labels: tuple[str, str]) -> None:
        self.weights, self.scale, self.bias, self.power, self.labels = weights, scale, bias, power, labels
        self._bits = int(weights.size).bit_length() - 1
        self._word = lru_cache(maxsize=1 << 16)(self._word_sum)

    def _word_sum(self, word: str) -> tuple[int, int, int]:
        """The sum of a word's weights (whole steps of ``scale``), the number of its features, and its hash."""
        features = word_features(word, self._bits)
        return int(self.weights[features].sum(dtype=np.int64)), len(features), word_hash(word)

    def log_odds(self, line: str) -> float:
        """The log-odds of the positive label for a line of tokens."""
        known = [self._word(word) for word in line.split(" ")]
        hashes = np.array([item[2] for item in known], np.uint32)
        pairs = self.weights[pair_features(hashes, self._bits)]
        total = sum(item[0] for item in known) + int(pairs.sum(dtype=np.int64))
        number = sum(item[1] for item in known) + len(pairs)
        return self.scale * total / float(number) ** self.power + self.bias

    def probability(self, line: str, label: str) -> float:
        """The probability of one of the labels for a line of tokens; 0 for an empty one."""
        if not line:
            return 0.0
        odds = self.log_odds(line) * (1.0 if label == self.labels[1] else -1.0)
        return 0.5 * (1.0 + math.tanh(odds / 2.0))

    def to_bytes(self) -> bytes:
        """The model's file; equal models give equal bytes."""
        buffer = io.BytesIO()
        labels = np.array(self.labels)
        np.savez_compressed(
            buffer, weights=self.weights, scale=self.scale, bias=self.bias, power=self.power, labels=labels
        )
        return buffer.getvalue()


def from_bytes(data: bytes, name: str) -> Linear:
    """The model of a file's contents; raises UserError, naming the file, where they are none."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found = {field: file[field] for field in _FIELDS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{name}: is not a linear model of this project (.npz)") from None
    weights, labels = found["weights"], tuple(str(label) for label in found["labels"].ravel())
    size = int(weights.size)
    if weights.dtype != np.int8 or weights.ndim != 1 or size < 2 or size & (size - 1) or len(labels) != 2:
        raise UserError(f"{name}: is a damaged linear model: its weights or labels are not those of one")
    scale, bias, power = (float(found[field]) for field in ("scale", "bias", "power"))
    return Linear(weights, scale, bias, power, (labels[0], labels[1]))


@cache
def load(path: str) -> Linear:
    """The model of a file, once a process; raises UserError where it cannot be read."""
    if not storage.is_s3(path) and not Path(path).is_file():
        raise UserError(f"{path}: there is no such model")
    return from_bytes(storage.read_bytes(path), path)
