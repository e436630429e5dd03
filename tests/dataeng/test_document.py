"""Documents and rows: what a row's hash depends on and what survives Parquet."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.document import (
    DOCUMENT,
    DROPPED,
    KEEP,
    ROW,
    Document,
    Verdict,
    capture_id,
    digest,
    from_row,
    row_hash,
    text_id,
    to_batch,
    to_dropped,
    to_row,
    with_text,
)

TEXT = st.text(st.characters(), max_size=20)  # half surrogate pairs included
NUMBER = st.one_of(st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False, width=64), st.booleans())
DOCUMENTS = st.builds(
    Document,
    id=st.uuids().map(lambda value: value.hex),
    text=st.none() | TEXT,
    url=st.none() | TEXT,
    source=TEXT,
    date=st.none() | TEXT,
    language=st.none() | TEXT,
    language_score=st.none() | NUMBER,
    scores=st.dictionaries(TEXT, NUMBER, max_size=4),
    metadata=st.dictionaries(TEXT, TEXT, max_size=4),
    file=st.none() | TEXT,
    offset=st.none() | st.integers(0, 2**40),
    length=st.none() | st.integers(0, 2**40),
)


def read_back(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Rows through a Parquet file, as ``stage verify`` reads them."""
    pq.write_table(pa.Table.from_batches([to_batch(rows)]), path)
    found = pq.read_table(path).to_pylist()
    return [row | {"scores": dict(row["scores"]), "metadata": dict(row["metadata"])} for row in found]


@settings(deadline=None)
@given(document=DOCUMENTS, threshold=st.none() | NUMBER)
def test_hashes_survive_parquet(tmp_path_factory: pytest.TempPathFactory, document: Document, threshold: Any) -> None:
    rows = [to_row(document), to_dropped(document, "filter", Verdict(False, "rule", 3, threshold, "min"))]
    found = read_back(rows, tmp_path_factory.mktemp("rows") / "t.parquet")
    assert [row_hash(row) for row in found] == [row["row_hash"] for row in rows]
    assert [row["row_hash"] for row in found] == [row["row_hash"] for row in rows]


@given(document=DOCUMENTS)
def test_a_row_gives_its_document_back(document: Document) -> None:
    once = from_row(to_row(document))
    assert to_row(once) == to_row(document)
    as_pairs = to_row(document) | {"scores": list(to_row(document)["scores"].items())}
    assert from_row(as_pairs) == once


@given(document=DOCUMENTS, seed=st.integers())
def test_hashes_do_not_depend_on_the_order_of_maps(document: Document, seed: int) -> None:
    shuffled = list(document.scores.items()), list(document.metadata.items())
    for pairs in shuffled:
        random.Random(seed).shuffle(pairs)
    other = replace(document, scores=dict(shuffled[0]), metadata=dict(shuffled[1]))
    assert to_row(other)["row_hash"] == to_row(document)["row_hash"]


@pytest.mark.parametrize(("a", "b"), [(0.1 + 0.2, 0.3), (0.0, -0.0), (1, 1.0), (1 / 3, 0.33333333), (2, True + 1)])
def test_hashes_do_not_depend_on_what_is_below_the_sixth_decimal(a: float, b: float) -> None:
    one, other = (Document("i", "t", scores={"s": value}, language_score=value) for value in (a, b))
    assert to_row(one)["row_hash"] == to_row(other)["row_hash"]


def test_hashes_depend_on_every_column() -> None:
    base = Document("i", "t", "u", "s", "d", "l", 0.5, {"a": 1.0}, {"k": "v"}, "f", 1, 2)
    changed = [
        replace(base, **{name: value})
        for name, value in {
            "id": "j",
            "text": None,
            "url": None,
            "source": "",
            "date": "e",
            "language": "m",
            "language_score": 0.500001,
            "scores": {"a": 1.000001},
            "metadata": {"k": "w"},
            "file": "g",
            "offset": 2,
            "length": 3,
        }.items()
    ]
    assert len(changed) == len(DOCUMENT)
    rows = [to_row(base), *(to_row(document) for document in changed)]
    rows += [
        to_row(base, **{name: value})
        for name, value in {
            "stage": "x",
            "rule": "x",
            "score": 1.0,
            "threshold": 1.0,
            "bound": "min",
            "duplicate_of": "x",
            "matched": "x",
            "similarity": 1.0,
        }.items()
    ]
    assert len({row["row_hash"] for row in rows}) == len(rows) == len(DROPPED) + 1
    assert to_row(base, "dropped")["row_hash"] == to_row(base)["row_hash"], "the table is no column"


def test_rows_say_why() -> None:
    row = to_dropped(Document("i", "t"), "filter", Verdict(False, "gopher.words.min", 3, 50, "min"), matched="m")
    assert (row["table"], row["stage"], row["rule"], row["score"], row["threshold"], row["bound"], row["matched"]) == (
        "dropped",
        "filter",
        "gopher.words.min",
        3.0,
        50.0,
        "min",
        "m",
    )
    assert KEEP.keep
    with pytest.raises(KeyError, match="mached"):
        to_row(Document("i", "t"), mached="m")


def test_batches_have_the_schema_even_when_empty() -> None:
    assert to_batch([]).schema == ROW
    assert to_batch([to_row(Document("i", None))]).schema == ROW


def test_ids() -> None:
    # SHA-256 of the bytes, computed by sha256sum
    assert capture_id("<urn:uuid:1>", "f", 0) == digest("<urn:uuid:1>")
    assert capture_id("abc", "f", 7) == "ba7816bf8f01cfea414140de5dae2223"
    assert capture_id(None, "f", 7) == capture_id("", "f", 7) == digest("f#7") != capture_id(None, "f", 8)
    assert text_id("s", "1", "t") == text_id("s", "1", "u") != text_id("r", "1", "t")
    assert text_id("s", None, "t") != text_id("s", None, "u")
    assert digest("ab", "c") != digest("a", "bc")


def test_with_text_leaves_the_original() -> None:
    document = Document("i", "t", metadata={"a": "1"})
    changed = with_text(document, "u", b="2")
    assert (changed.text, changed.metadata, document.text, document.metadata) == (
        "u",
        {"a": "1", "b": "2"},
        "t",
        {"a": "1"},
    )
