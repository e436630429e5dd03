"""Tasks that die and are tried again give the same tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dedup_reference import Plain
from test_dedup_job import JOINS, ONE_TASK, corpus, recipe_config

from dataeng import stage

REPO = Path(__file__).parents[2]


@pytest.mark.e2e
@pytest.mark.parametrize("way", [JOINS, ONE_TASK])
def test_tasks_that_die_once_change_nothing(tmp_path, published, way) -> None:
    rows, settings = corpus(4), {"threshold": 0.7}
    published(tmp_path, "texts", rows, 3)
    command = [sys.executable, str(Path(__file__).with_name("dedup_with_failures.py")), str(tmp_path)]
    answer = subprocess.run(
        [*command, json.dumps(settings), str(way)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPO)},
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert int(answer.stdout.splitlines()[-1]) >= 5
    manifest, _ = stage.read_manifest(str(tmp_path / "dedup"))
    assert {name: table.hash for name, table in manifest.tables.items()} == Plain(
        rows, recipe_config(**settings)
    ).hashes()
    assert manifest.counts["in"] == len(rows)
    assert stage.verify(str(tmp_path), "dedup") == []
