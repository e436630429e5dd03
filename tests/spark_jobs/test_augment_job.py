"""The whole step: copies beside what came in, splits that hold them together, answers asked for once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import completion, serving, shout

from dataeng import stage
from dataeng.cli import Failure, UserError
from dataeng.document import Document, digest, to_row
from dataeng.recipe import Recipe
from dataeng.stage import Manifest
from spark_jobs import augment, publish
from spark_jobs.session import Engine


def corpus(documents: int = 60) -> list[dict[str, Any]]:
    rows = []
    for k in range(documents):
        text = f"Page {k} tells of a dog. It was quick.\nThe end of page {k}."
        cluster = digest(f"cluster {k}")
        more = {"source": "web", "language": "de" if k % 10 == 0 else "en", "metadata": {"cluster": cluster}}
        rows.append(to_row(Document(digest(str(k)), text, **more)))
    return rows


def recipe(root: Path, url: str, partitions: int = 2, **tables: Any) -> Recipe:
    endpoint = {"base_url": url, "model": "m", "retries": 1, "first_pause": 0.01, "timeout_seconds": 5}
    dictionary = root.parent / "words.tsv"
    dictionary.write_text("dog\thound\nquick\tfast\n")
    methods = {"synonyms": {"languages": ["en"], "dictionary": str(dictionary), "share": 1.0}}
    methods |= {"paraphrase": {"languages": ["en"], "documents": 0.5}, "endpoint": endpoint}
    spark = {"master": "local[2]", "partitions": partitions}
    given = {"spark": spark, "augment": {"input": "texts", **methods}, "publish": {"validation": 0.2, "test": 0.2}}
    return Recipe("test.toml", str(root), 3, {**given, **tables})


def run(given: Recipe) -> Manifest:
    return augment.step(Engine(given), given)


def flaky() -> Any:
    """Requests about a page with a 7 are never answered well; others are at their second time."""
    asked = Counter[str]()

    def reply(request: dict[str, Any], number: int) -> tuple[int, bytes, dict[str, str]]:
        prompt = request["messages"][0]["content"]
        asked[prompt] += 1
        if "7" in prompt:
            return (500, b"", {}) if number % 2 else (200, completion(""), {})
        return (200, b"{", {}) if asked[prompt] == 1 else shout(request, number)

    return reply


def test_copies_stand_beside_their_origins_and_publish_takes_both(spark, tmp_path, published, table_rows) -> None:
    rows, hashes = corpus(), set()
    with serving(flaky()) as server:
        for partitions, files in ((1, 1), (3, 4)):
            root = tmp_path / str(partitions)
            published(root, "texts", rows, files)
            given = recipe(root, server.url, partitions)
            if hashes:  # with the answers that the first run kept
                os.rename(tmp_path / "1" / "augment" / "answers", root / "answers")
                (root / "augment").mkdir()
                os.rename(root / "answers", root / "augment" / "answers")
                before = len(server.requests)
            manifest = run(given)
            assert stage.verify(str(root), "augment") == []
            hashes.add((manifest.tables["kept"].hash, manifest.tables["augmented"].hash))
            rows.reverse()
    assert len(hashes) == 1
    again = {request["messages"][0]["content"] for request in server.requests[before:]}
    assert all("7" in prompt for prompt in again)  # what was answered is not asked again
    assert manifest.counts == {"in": 60, "kept": 60, "dropped": 0}
    made, failed = table_rows(root, "augment", "augmented"), table_rows(root, "augment", "failed")
    methods = manifest.details["methods"]
    assert methods["synonyms"]["copies"] + methods["paraphrase"]["copies"] == len(made)
    assert sum(methods["paraphrase"]["failed"].values()) == len(failed) > 0
    assert methods["paraphrase"]["prompt_tokens"] % 7 == 0
    published_of = publish.step(Engine(given), given)
    assert published_of.counts == {"in": 60 + len(made), "kept": 60 + len(made), "dropped": 0}
    train = {row["id"]: row for row in table_rows(root, "publish", "train")}
    assert {row["source"] for row in train.values()} == {"web", "web+paraphrase", "web+synonyms"}
    copies = [row for row in train.values() if "origin" in row["metadata"]]
    assert len(copies) == len(made)
    assert all(train[row["metadata"]["origin"]]["language"] == "en" for row in copies)


def test_a_dead_endpoint_is_a_failure_and_a_missing_key_a_mistake(spark, tmp_path, published, monkeypatch) -> None:
    published(tmp_path / "root", "texts", corpus(20))
    with serving(lambda *_: (503, b"", {})) as server:
        given = recipe(tmp_path / "root", server.url)
        with pytest.raises(Failure, match=r"none of \d+ requests to http://127\.0\.0\.1:\d+/v1 was answered \(.*503"):
            run(given)
        assert stage.read_manifest(str(tmp_path / "root" / "augment")) is None
        given.tables["augment"]["endpoint"]["key_variable"] = "NO_SUCH_KEY"
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        asked = len(server.requests)
        with pytest.raises(UserError, match="environment variable NO_SUCH_KEY is not set"):
            run(given)
        Path(given.tables["augment"]["synonyms"]["dictionary"]).write_text("dog hound\n")
        del given.tables["augment"]["endpoint"]["key_variable"]
        with pytest.raises(UserError, match=r"words\.tsv: line 1"):
            run(given)
    assert len(server.requests) == asked
