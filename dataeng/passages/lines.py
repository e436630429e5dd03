"""Lines and paragraphs that many documents of a site share: what extraction left of its frame.

A line counts by its text in NFC with white space folded, nothing else changed; a site is the host of the URL, or the
source where there is none. A line in at least ``minimum_documents`` documents of its site is common. Common lines go

- as a block, one line or several that follow each other, in their first occurrence too, with no empty line between
  them, of ``minimum_words`` words or more; or
- where ``minimum_share`` of the site's documents have the line.

Such a line, or the first and the last of a block, has ``line_words`` words. So headings (``See also``), braces,
imports and the heads of tracebacks stay, though they recur. A word is a token with a letter in it.

Lines are known by 128 bits of BLAKE2b over site and line: with n distinct lines the chance that any two are taken
for one is about n^2 / 2^129, for 10^12 lines 1.5e-15.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dataeng.passages.tokens import Tokens
from dataeng.recipe import Table


class Config(Table):
    """Table `passages.lines`."""

    minimum_documents: int = Field(6, ge=2, description="Documents of a site from which on a line of them is common")
    minimum_words: int = Field(12, ge=1, description="Words of a block of common lines from which on it is cut")
    minimum_share: float = Field(0.8, gt=0, le=1, description="Share of a site's documents from which on one line does")
    line_words: int = Field(2, ge=1, description="Words of a line that is cut alone, begins a block or ends one")


def site(url: str | None, source: str | None) -> str:
    """The host of an address, or the source where it has none that can be read."""
    try:
        host = urlsplit(url or "").hostname
    except ValueError:
        host = None
    return f"host {host}" if host else f"source {source or ''}"


def occurrences(text: str, found: Tokens, of_site: str) -> dict[str, Any]:
    """The lines of a text that hold anything: keys, places, ends, words, and weight 1 where one is the text's first."""
    numbered = _places(text)
    spans = [(start, end) for _, start, end in numbered]
    digests = [_digest(of_site, text[start:end]) for start, end in spans]
    keys = np.frombuffer(b"".join(digests), np.int64).reshape(-1, 2)
    bounds = np.array(spans, np.int64).reshape(-1, 2)
    letters = np.concatenate(([0], np.cumsum(found.letters)))
    words = letters[np.searchsorted(found.starts, bounds[:, 1])] - letters[np.searchsorted(found.starts, bounds[:, 0])]
    weight = np.zeros(len(spans), np.int64)
    weight[list({digest: index for index, digest in reversed(list(enumerate(digests)))}.values())] = 1
    place = np.array([number << 32 | start for number, start, _ in numbered], np.int64)
    return {
        "key": keys[:, 0],
        "more": keys[:, 1],
        "place": place,
        "end": bounds[:, 1],
        "words": words,
        "weight": weight,
    }


def _places(text: str) -> list[tuple[int, int, int]]:
    """Number, start and end of each line that holds anything, without the white space around it."""
    found, place = [], 0
    for number, line in enumerate(text.split("\n")):
        if bare := line.strip():
            start = place + len(line) - len(line.lstrip())
            found.append((number, start, start + len(bare)))
        place += len(line) + 1
    return found


def _digest(of_site: str, line: str) -> bytes:
    plain = " ".join((line if line.isascii() else unicodedata.normalize("NFC", line)).split())
    return hashlib.blake2b(f"{of_site}\n{plain}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def chosen(part: Mapping[str, Any], site_documents: int, config: Config) -> NDArray[np.bool_]:
    """Which of a document's common lines are to be cut, where they are not the first themselves.

    ``part`` has arrays, a line an item, in order: ``place`` and ``first_place`` (number of the line times 2^32 and
    character), ``first_id``, ``words``, and ``holders``, the documents of the site that have the line.
    """
    words = part["words"]
    by_itself = words >= config.line_words
    found = by_itself & (part["holders"] >= config.minimum_share * site_documents)
    number, first = part["place"] >> 32, part["first_place"] >> 32
    follows = (number[1:] == number[:-1] + 1) & (first[1:] == first[:-1] + 1)
    follows &= part["first_id"][1:] == part["first_id"][:-1]
    bounds = np.concatenate(([0], np.flatnonzero(~follows) + 1, [words.size]))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        edges = start + np.flatnonzero(by_itself[start:end])
        if edges.size and words[edges[0] : edges[-1] + 1].sum() >= config.minimum_words:
            found[edges[0] : edges[-1] + 1] = True
    return found
