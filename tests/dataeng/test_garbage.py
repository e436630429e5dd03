"""Garbage: what no manifest names goes, and nothing else; on local files and on S3 (moto's server) alike."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from dataeng import garbage, s3, storage
from dataeng.cli import UserError

WEEK = 7 * 86_400
ONE, TWO, THREE, FOUR = (uuid.UUID(int=number).hex for number in range(1, 5))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "run")
        return
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("server"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3._client.cache_clear()
    bucket = f"b{uuid.uuid4().hex[:20]}"
    s3.client().create_bucket(Bucket=bucket)
    yield f"s3://{bucket}/run"
    s3._client.cache_clear()


def put(root: str, *paths: str) -> None:
    for path in paths:
        storage.write_bytes(storage.join(root, path), path.encode())


def manifest(root: str, path: str, attempt: str, *files: str) -> None:
    tables = {"kept": {"files": [{"path": file} for file in files]}}
    storage.write_bytes(storage.join(root, path), json.dumps({"attempt": attempt, "tables": tables}).encode())


def names(root: str) -> set[str]:
    return {entry.path.removeprefix(root + "/") for entry in storage.list_files(root)}


KEPT = (
    f"filter/data/{ONE}/table=kept/part-0.parquet",
    f"filter/data/{ONE}/_SUCCESS",
    f"filter/data/{ONE}.signatures/part-0.parquet",
    f"extract/data/slice-a/{TWO}/part-0.parquet",  # named by its slice alone: the stage is not finished
    f"pretrain/checkpoints/abc/step-00000100/{ONE}/0.distcp",
    "report.html",
    "pretrain/metrics.jsonl",
    "mine/data/captures.warc.gz",  # a user's own
    "notes.tmp",
)
LOST = (
    f"filter/data/{TWO}/table=kept/part-0.parquet",
    f"filter/data/{TWO}/_SUCCESS",
    f"extract/data/slice-a/{THREE}/part-0.parquet",
    f"pretrain/checkpoints/abc/step-00000100/{TWO}/0.distcp",  # another attempt won
    f"pretrain/checkpoints/abc/step-00000050/{THREE}/0.distcp",  # pruned: its manifest is gone
    f"dedup/data/{FOUR}.signatures/part-0.parquet",  # of an attempt, beside its rows
    f"dedup/data/{FOUR}/part-0.parquet",  # killed before it published
    f"dedup/manifest.json.{FOUR}.tmp",
)


@pytest.fixture
def filled(root: str) -> str:
    put(root, *KEPT, *LOST)
    manifest(root, "filter/manifest.json", ONE, f"data/{ONE}/table=kept/part-0.parquet")
    manifest(root, "extract/slices/slice-a.json", TWO, f"data/slice-a/{TWO}/part-0.parquet")
    manifest(root, "pretrain/checkpoints/abc/step-00000100/manifest.json", ONE)
    return root


def test_exactly_what_no_manifest_names_goes(filled: str) -> None:
    before, later = names(filled), time.time() + 8 * 86_400
    listed, _ = garbage.collect(filled, WEEK, delete=False, now=later)
    assert {entry.path.removeprefix(filled + "/") for entry in listed} == set(LOST)
    assert names(filled) == before
    garbage.collect(filled, WEEK, delete=True, now=later)
    assert names(filled) == before - set(LOST)
    assert garbage.collect(filled, WEEK, delete=True, now=later) == ([], [])


def test_what_is_young_stays(filled: str) -> None:
    assert garbage.collect(filled, WEEK, delete=True) == ([], [])


def test_a_merged_stage_names_the_files_of_its_slices(root: str) -> None:
    put(root, f"filter/data/s/{TWO}/part-0.parquet")
    manifest(root, "filter/manifest.json", ONE, f"data/s/{TWO}/part-0.parquet")
    assert garbage.collect(root, 0, delete=True, now=time.time() + 9)[0] == []


def test_a_damaged_manifest_stops_everything(filled: str) -> None:
    put(filled, "dedup/manifest.json")
    before = names(filled)
    with pytest.raises(UserError, match=r"dedup/manifest\.json: is damaged"):
        garbage.collect(filled, 0, delete=True, now=time.time() + 9)
    assert names(filled) == before


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_pending_uploads_are_aborted(root: str) -> None:
    bucket, key = s3.split(root)
    for name in (f"{key}/filter/data/{ONE}/part", "elsewhere/part"):
        s3.client().create_multipart_upload(Bucket=bucket, Key=name)
    pending = garbage.uploads(root, 0)
    assert [upload.key for upload in pending] == [f"{key}/filter/data/{ONE}/part"]
    later = pending[0].started + WEEK  # moto's clock for uploads stands still
    assert garbage.uploads(root, WEEK, later - 1) == []
    garbage.collect(root, WEEK, delete=True, now=later)
    left = s3.client().list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/part"]


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_empty_folders_go_too(filled: str) -> None:
    garbage.collect(filled, 0, delete=True, now=time.time() + 9)
    assert not (Path(filled) / "dedup").exists()
    assert (Path(filled) / "filter" / "data").exists()


@pytest.mark.parametrize(("text", "seconds"), [("7d", WEEK), ("1.5h", 5400), ("0s", 0), ("2w", 2 * WEEK)])
def test_durations(text: str, seconds: float) -> None:
    assert garbage.seconds_of(text) == seconds


@pytest.mark.parametrize(
    "arguments", [[], ["gc"], ["gc", "root", "--older-than", "soon"], ["sweep", "r", "--older-than", "1d"]]
)
def test_a_wrong_command_is_one_line_and_status_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "dataeng.storage", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_command_lists_and_deletes(tmp_path: Path) -> None:
    put(str(tmp_path), LOST[0])
    command = [sys.executable, "-m", "dataeng.storage", "gc", str(tmp_path), "--older-than", "0s"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert LOST[0] in listed.stdout
    assert names(str(tmp_path)) == {LOST[0]}
    subprocess.run([*command, "--yes"], capture_output=True, check=True)
    assert names(str(tmp_path)) == set()
