"""The card says what a corpus came from, through other roots as well, and names no folder of its maker's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dataeng import decontaminate, dedup, filter
from dataeng.publish import Config, card
from dataeng.recipe import Table
from dataeng.stage import Attempt, Manifest


def publish(root: Path, name: str, config: Table, inputs: list[str], **more: Any) -> Manifest:
    entries = [{"stage": one, "hash": "0" * 32} for one in inputs]
    attempt = Attempt(name, str(root / name), config, "f" * 32, entries, None)
    return attempt.publish(attempt.manifest(**more))


def test_the_card_follows_other_roots(tmp_path: Path) -> None:
    old, new = tmp_path / "run-a", tmp_path / "run-b"
    publish(old, "filter", filter.Config(rules=["personal_data"]), [], dropped_by={"toxicity": 2})
    unread = {"name": "gsm8k", "path": str(tmp_path / "sets" / "gsm8k.jsonl"), "fields": ["question"]}
    sets = decontaminate.Config(sets=[unread])
    publish(old, "decontaminate", sets, ["filter"], dropped_by={"contaminated": 3})
    publish(old, "semantic", Table(), ["filter"], dropped_by={"other": 9})  # no part of this corpus
    publish(new, "dedup", dedup.Config(), [str(old / "decontaminate")], dropped_by={"exact": 4})
    details = {"sources": {}, "languages": {}, "groups": {}, "bytes": 0}
    tables = {name: {} for name in ("train", "validation", "test")}
    config = Config(columns={"title": "metadata.title"}, order={"score": "quality", "descending": True})
    counts = {"in": 10, "kept": 10, "dropped": 0}
    manifest = publish(new, "publish", config, ["dedup"], details=details, tables=tables, counts=counts)
    text = Path(card.write(str(new), manifest, config)).read_text()
    dropped = text.partition("## What was left out")[2].partition("##")[0]
    assert [line for line in dropped.splitlines() if line.startswith("| ")][2:] == [
        "| run-a/filter | toxicity | 2 |",
        "| run-a/decontaminate | contaminated | 3 |",
        "| dedup | exact | 4 |",
    ]
    assert "| dedup | threshold | 0.8 |" in text
    assert "| run-a/decontaminate | sets.0.name | gsm8k |" in text
    assert "| title | `metadata.title` |" in text
    assert "The highest `quality` first" in text
    assert "Personal data is masked" in text
    assert "not checked against evaluation sets" not in text
    assert str(tmp_path) not in text
    assert "toxicity.threshold" not in text  # a rule that did not run


def test_what_was_not_done_is_a_limit(tmp_path: Path) -> None:
    details = {"sources": {}, "languages": {}, "groups": {}, "bytes": 0}
    tables = {name: {} for name in ("train", "validation", "test")}
    publish(tmp_path, "augment", Table(), [], dropped_by={"x": 1})
    manifest = publish(tmp_path, "publish", Config(), ["augment"], details=details, tables=tables)
    text = Path(card.write(str(tmp_path), manifest, Config())).read_text()
    for limit in ("Personal data was not masked", "not checked against evaluation sets", "are copies of others"):
        assert limit in text
