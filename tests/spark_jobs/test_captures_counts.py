"""What extract counted while it read, summed over files into the manifest."""

from __future__ import annotations

import pyarrow.parquet as pq

from dataeng.document import to_batch
from dataeng.sources import counts_row
from spark_jobs.stages import _captures


def test_counts_and_agreements_of_files_are_added_up(tmp_path):
    paths = []
    for name, captures, more in (
        ("a", 10, {"checked": 3, "checked_sum": 2.5}),
        ("b", 4, None),
        ("c", 1, {"checked": 1}),
    ):
        paths.append(str(tmp_path / f"{name}.parquet"))
        batch = to_batch([counts_row(name, "web", captures, 2, 5, more)])
        with pq.ParquetWriter(paths[-1], batch.schema) as writer:
            writer.write_batch(batch)
    assert _captures(paths) == (15 + 6, 15, {"checked": 4, "checked_sum": 2.5})
    assert _captures(paths[1:2]) == (6, 5, {})
