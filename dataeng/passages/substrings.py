"""Passages of ``tokens`` tokens and more that stand anywhere before, in another document or in the same one.

After Lee et al. 2022 (arXiv 2107.06499: 50 BPE tokens, a suffix array); here a token is a word with its punctuation
(``dataeng.passages.tokens``). A window is ``tokens`` tokens in a row. A window is a repeat where an equal one stands in
a document before, or before it in the same document without overlapping it; a repeat is cut as a whole. So every
passage of that length that recurs is found, to its last token, and no token goes that is not part of one.

Windows are found in two steps. Each is stood for by one run of half its tokens (winnowing); a window whose run occurs
once in the corpus occurs once, and is not looked at again. Of the others a 128-bit BLAKE2b of the tokens themselves is
compared: two that differ are taken for one with probability 2^-128, among n windows any two with n^2 / 2^129.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from dataeng.passages.tokens import Tokens, tokens, winnow
from dataeng.recipe import Table


class Config(Table):
    """Table `passages.substrings`."""

    tokens: int = Field(50, ge=2, le=10_000, description="Tokens of the shortest passage that is cut")
    within: bool = Field(True, description="Whether repeats inside one document count as well")


def runs(found: Tokens, length: int) -> dict[str, Any]:
    """The runs that stand for a text's windows: hashes and places."""
    hashes, least = winnow(found, length)
    taken = np.unique(least)
    return {"key": hashes[taken].view(np.int64), "place": taken, "weight": 1}


def windows(text: str, places: Sequence[int], length: int) -> dict[str, Any]:
    """A text's windows whose runs stand at one of ``places``: 128-bit hashes of their tokens, places, ends."""
    found = tokens(text)
    _, least = winnow(found, length)
    taken = np.flatnonzero(np.isin(least, np.array(places, np.int64)))
    pieces = [
        text[start:end].encode("utf-8", "surrogatepass")
        for start, end in zip(found.starts.tolist(), found.ends.tolist(), strict=True)
    ]
    whole = b" ".join(pieces)  # no token holds a space
    bounds = np.concatenate(([0], np.cumsum([len(piece) + 1 for piece in pieces]))).tolist()
    digests = [
        hashlib.blake2b(whole[bounds[index] : bounds[index + length] - 1], digest_size=16).digest()
        for index in taken.tolist()
    ]
    keys = np.frombuffer(b"".join(digests), np.int64).reshape(-1, 2)
    place = (taken << 32) | found.starts[taken]
    end = found.ends[taken + length - 1]
    return {"key": keys[:, 0], "more": keys[:, 1], "place": place, "end": end, "weight": 1}
