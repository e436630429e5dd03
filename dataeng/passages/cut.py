"""Spans taken out of a text, and what becomes of the document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from dataeng.document import ROW, Verdict, from_row, to_batch, to_dropped, to_row, with_text
from dataeng.passages import Config
from dataeng.passages.tokens import is_alone


def merged(text: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans (start, end) in order, those put together that overlap or have white space alone between them."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and not text[found[-1][1] : start].strip():
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def cut(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without the spans. At each seam stands one space, line break or blank line, as stood beside the cut."""
    parts: list[str] = []
    done = 0
    for start, end in merged(text, spans):
        parts += [text[done:start], text[start:end]]
        done = end
    if not parts:
        return text
    out = parts[0]
    for removed, right in zip(parts[1::2], [*parts[2::2], text[done:]], strict=True):
        left, following = out.rstrip(), right.lstrip()
        if left and following:
            left += _seam(left[-1], out[len(left) :], removed, right[: len(right) - len(following)], following[0])
        out = left + following
    return out


def _seam(last: str, before: str, removed: str, after: str, first: str) -> str:
    """What joins two parts: ``last`` and white space ``before`` the cut, white space ``after`` it and ``first``."""
    breaks = max(before.count("\n"), after.count("\n")) or int("\n" in removed)
    if breaks:
        line = after if "\n" in after else before
        return "\n" * min(breaks, 2) + (line.rpartition("\n")[2] if "\n" in line else "")
    return "" if not before and not after and (is_alone(last) or is_alone(first)) else " "


def verdict(row: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The row of table kept or dropped for a document with its ``spans`` (start, end, rule), or None.

    Kept ones tell in their metadata what was cut: ``cut.lines``, ``cut.substrings`` and ``cut.characters``. One
    with ``needed`` is the first occurrence of something that was cut elsewhere, and stays however short it becomes.
    """
    document, spans = from_row(row), row["spans"] or ()
    if not spans:
        return to_row(document)
    text = document.text or ""
    places = [(span["start"], span["end"]) for span in spans]
    left = cut(text, places)
    if len(left) < config.minimum_characters and not row["needed"]:
        limit = min(1.0, config.minimum_characters / len(text))
        return to_dropped(document, "passages", Verdict(False, "passages", len(left) / len(text), limit, "min"))
    counts = Counter(span["rule"] for span in spans)
    counts["characters"] = sum(end - start for start, end in merged(text, places))
    return to_row(with_text(document, left, **{f"cut.{name}": str(count) for name, count in counts.items()}))


def decide(batches: Iterable[pa.RecordBatch], config: Config) -> Iterator[pa.RecordBatch]:
    """The rows of tables kept and dropped, hashed."""
    for batch in batches:
        yield to_batch([verdict(row, config) for row in batch.to_pylist()], ROW)


def repeated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of table dropped, hashed, of documents whose id an earlier row has."""
    why = Verdict(False, "duplicate_id")
    for batch in batches:
        documents = [from_row(row) for row in batch.to_pylist()]
        rows = [to_dropped(one, "passages", why, duplicate_of=one.id, matched=one.id) for one in documents]
        yield to_batch(rows, ROW)
