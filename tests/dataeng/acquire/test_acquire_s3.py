"""Crawls and downloads with a root, and a source, on object storage (moto's server)."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer
from test_common_crawl import SNAPSHOT, snapshot

from dataeng import s3, stage, storage, warc
from dataeng.acquire import common_crawl, crawl
from dataeng.recipe import Recipe
from dataeng.warc import Capture


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        values = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in values.items():
            patch.setenv(name, value)
        s3._client.cache_clear()
        boto3.client("s3").create_bucket(Bucket="acquire")
        yield "s3://acquire"
        s3._client.cache_clear()
    server.stop()


def published(root: str, name: str) -> list[str]:
    folder = stage.folder_of(root, name)
    return stage.table_paths(folder, stage.need_manifest(root, name, "test"), "captures")


@pytest.mark.parametrize("more", [{"count": 2, "range_bytes": 1000}, {"domains": ["example.org"]}])
def test_common_crawl_from_and_to_object_storage(bucket, tmp_path, more):
    files: dict[str, bytes] = {}
    rows = snapshot(files)
    for path, data in files.items():
        storage.write_bytes(f"{bucket}/mirror/{path}", data)
    root = f"{bucket}/run-{len(more)}"
    table = {"snapshot": SNAPSHOT, "base": f"{bucket}/mirror", "scratch": str(tmp_path), **more}
    common_crawl.step(Recipe("r", root, 0, {"common_crawl": table}))
    found = [item for path in published(root, "common_crawl") for item in warc.read(path) if isinstance(item, Capture)]
    expected = [r for r in rows if r["url_host_registered_domain"] == "example.org"] if "domains" in more else rows[:40]
    assert len(found) == len(expected)
    assert stage.verify(root, "common_crawl") == []
    assert list(tmp_path.iterdir()) == []


def test_a_crawl_and_its_second_visit_on_object_storage(bucket, tmp_path):
    root = f"{bucket}/crawl-run"
    table = {"seeds": ["pydoc:"], "depth": 1, "include": [r"/(json|abc)\.html$"], "delay_seconds": 0, "sitemaps": False}
    for visit in (1, 2):
        crawl.step(Recipe("r", root, 0, {"crawl": table | {"visit": visit, "scratch": str(tmp_path)}}))
    first, second = (list(warc.read(path)) for path in published(root, "crawl"))
    assert sum(isinstance(item, Capture) for item in first) == 4
    assert sum(isinstance(item, Capture) for item in second) == 0
    assert stage.verify(root, "crawl") == []
    assert list(tmp_path.iterdir()) == []
