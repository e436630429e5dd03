"""Thresholds from data: the value that keeps a share, what it would drop, and unknown rules."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng import thresholds
from dataeng.cli import UserError
from dataeng.document import KEEP, ROW, Document, Verdict, to_batch, to_dropped, to_row
from dataeng.filter import Config
from dataeng.manifest import FileEntry, Manifest, TableEntry

RULES = {"rules": ["toxicity", "gopher"]}


def document(number, scores):
    language, host = ("en", "a.org") if number % 2 else (None, "b.org")
    return Document(f"{number:032x}", "text", url=f"http://{host}/{number}", language=language, scores=scores)


@pytest.fixture
def root(tmp_path):
    """100 documents with toxicity 0.00 … 0.99 (those above 0.8 dropped), and 20 that an earlier rule dropped."""
    rows = {"kept": [], "dropped": []}
    for number in range(100):
        made = document(number, {"a.first": 1.0, "toxicity": number / 100, "z": 2.0})
        if number > 80:
            rows["dropped"].append(to_dropped(made, "filter", Verdict(False, "toxicity", number / 100, 0.8, "max")))
        else:
            rows["kept"].append(to_row(made))
    rows["dropped"] += [to_dropped(document(n, {}), "filter", KEEP._replace(keep=False)) for n in range(100, 120)]
    tables = {}
    for table, listed in rows.items():
        path = tmp_path / "filter" / "data" / f"{table}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_batches([to_batch(listed)], ROW), path, row_group_size=7)
        file = FileEntry(path=f"data/{table}.parquet", rows=len(listed), bytes=path.stat().st_size)
        tables[table] = TableEntry(rows=len(listed), files=[file])
    manifest = Manifest(
        stage="filter", version=1, attempt="a", fingerprint="f", config=Config(**RULES).model_dump(mode="json"),
        inputs=[], counts={}, tables=tables, versions={}, started="2026-01-01T00:00:00", seconds=1.0,
    )  # fmt: skip
    (tmp_path / "filter" / "manifest.json").write_bytes(manifest.encoded())
    return str(tmp_path)


def test_the_value_and_what_it_would_drop(root):
    lines = thresholds.answer(root, "toxicity", 0.9).splitlines()
    assert lines[0] == "toxicity.max = 0.89"
    assert lines[1] == (
        "  keeps 0.9000 of the 100 documents that have the score (wanted 0.9); the run's own 0.9 keeps 0.9100"
    )
    assert lines[2:5] == ["  drops 10", "  by language: en 5, unknown 5", "  by host: a.org 5, b.org 5"]
    assert lines[5:7] == ["  just dropped:", "    0.9  http://b.org/90"]
    assert lines[11:13] == ["  just kept:", "    0.89  http://a.org/89"]
    assert thresholds.answer(root, "toxicity.max", 0.9).splitlines() == lines
    assert thresholds.answer(root, "toxicity", 1).splitlines()[:3:2] == ["toxicity.max = 0.99", "  drops 0"]


def test_what_is_printed_of_an_address_is_masked():
    assert thresholds._shown("http://a.org/bob@mail.acme.com/\x1b[2J?x") == "http://a.org/<EMAIL>/[2J?x"
    assert thresholds._shown("0" * 32) == "0" * 32


@pytest.mark.parametrize("rule", ["toxicty", "toxicity.min", "gopher.words"])
def test_an_unknown_rule_names_the_known_ones(root, rule):
    with pytest.raises(UserError, match=r"no such rule.*gopher\.mean_word_length\.max.*toxicity\.max"):
        thresholds.answer(root, rule, 0.9)


def test_mistakes_end_in_one_line_and_status_2(root):
    for arguments in ([root, "nonsense", "--keep", "0.9"], [root, "toxicity", "--keep", "90"], [root], []):
        done = subprocess.run(
            [sys.executable, "-m", "dataeng.thresholds", *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    with pytest.raises(UserError, match=r"no document of .* has this score"):
        thresholds.answer(root, "gopher.words.min", 0.9)
    with pytest.raises(UserError, match="has not been published"):
        thresholds.answer(root + "/nowhere", "toxicity", 0.9)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.sampled_from(["min", "max"]),
    st.integers(1, 100).map(lambda n: n / 100),
)
def test_the_strictest_value_that_keeps_the_share(listed, bound, keep):
    values = np.array(listed)
    value = thresholds.choose(values, bound, keep)
    kept = 1 - thresholds.drops(values, bound, value).mean()
    assert kept >= keep - 1e-9
    stricter = values[values < value] if bound == "max" else values[values > value]
    if len(stricter):
        following = stricter.max() if bound == "max" else stricter.min()
        assert 1 - thresholds.drops(values, bound, following).mean() < keep
