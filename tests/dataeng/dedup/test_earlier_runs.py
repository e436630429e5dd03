"""Earlier runs that a new corpus is deduplicated against."""

from __future__ import annotations

import pytest

from dataeng.cli import UserError
from dataeng.dedup import Config
from dataeng.dedup.against import earlier_runs


@pytest.mark.parametrize(("named", "own"), [("{}/a", "{}/./a"), ("{}/link", "{}/a"), ("s3a://b/a/", "s3://b/a")])
def test_a_run_is_not_deduplicated_against_itself(tmp_path, named, own):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="is this run itself"):
        earlier_runs(Config(against=[named.format(tmp_path)]), own.format(tmp_path))


def test_an_earlier_run_must_be_published(tmp_path):
    with pytest.raises(UserError, match="has not been published"):
        earlier_runs(Config(against=[str(tmp_path / "a")]), str(tmp_path / "b"))
