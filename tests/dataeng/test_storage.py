"""Storage: one winner of several writers, lost answers, patterns; local files and S3 (moto's server) alike."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from dataeng import s3, storage, uploads
from dataeng.cli import UserError

ROUNDS = 60


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for key, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    s3._client.cache_clear()
    name = "bucket"
    s3.client().create_bucket(Bucket=name)
    yield f"s3://{name}"
    storage.delete([entry.path for entry in storage.list_files(f"s3://{name}")])
    s3.client().delete_bucket(Bucket=name)
    s3._client.cache_clear()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "place") if request.param == "local" else request.getfixturevalue("bucket") + "/place"


# --- one winner --------------------------------------------------------------------------------


def _race(folder: str, me: int, start: Any, wins: Any) -> None:
    """Many rounds of one first write and one replacement of it, all processes at once."""
    for number in range(ROUNDS):
        path = f"{folder}/{number}.json"
        start.wait()
        wins[me, number, "first"] = storage.write_if(path, f"first {me}".encode(), None)
        start.wait()
        _, tag = storage.read_tagged(path) or (b"", "")
        start.wait()
        wins[me, number, "second"] = storage.write_if(path, f"second {me}".encode(), tag)
        start.wait()


def test_of_several_processes_exactly_one_writes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = 3
    with context.Manager() as manager:
        wins = manager.dict()
        start = manager.Barrier(writers)
        processes = [context.Process(target=_race, args=(str(tmp_path), me, start, wins)) for me in range(writers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * writers
        won = dict(wins)
    for number in range(ROUNDS):
        for turn in ("first", "second"):
            assert sum(won[me, number, turn] for me in range(writers)) == 1
        winner = next(me for me in range(writers) if won[me, number, "second"])
        assert (tmp_path / f"{number}.json").read_text() == f"second {winner}"
    assert not list(tmp_path.glob("*.tmp")), "no temporary file is left"


def test_a_writer_killed_between_write_and_link_leaves_nothing_in_force(tmp_path: Path) -> None:
    script = (
        "import os, sys; from dataeng import storage\n"
        "os.link = lambda *a: os.kill(os.getpid(), 9)\n"
        "storage.write_if(sys.argv[1], b'half', None)"
    )
    path = str(tmp_path / "manifest.json")
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == -9
    assert storage.read_tagged(path) is None
    assert storage.write_if(path, b"whole", None)
    assert storage.read_bytes(path) == b"whole"


def test_a_replacer_killed_under_the_lock_does_not_block_the_next(tmp_path: Path) -> None:
    path = str(tmp_path / "manifest.json")
    assert storage.write_if(path, b"one", None)
    found = storage.read_tagged(path)
    assert found
    script = (
        "import os, sys; from dataeng import storage\n"
        "os.replace = lambda *a: os.kill(os.getpid(), 9)\n"
        "storage.write_if(sys.argv[1], b'half', sys.argv[2])"
    )
    assert subprocess.run([sys.executable, "-c", script, path, found[1]]).returncode == -9
    assert storage.write_if(path, b"two", found[1])
    assert storage.read_bytes(path) == b"two"


def test_write_if_keeps_to_its_tag(place: str) -> None:
    path = f"{place}/manifest.json"
    assert not storage.write_if(path, b"early", "0" * 32), "a tag of a file that is not there"
    assert storage.write_if(path, b"one", None)
    assert not storage.write_if(path, b"two", None)
    found = storage.read_tagged(path)
    assert found
    assert found[0] == b"one"
    assert storage.write_if(path, b"two", found[1])
    assert not storage.write_if(path, b"three", found[1]), "the tag is of what was replaced"
    assert storage.read_bytes(path) == b"two"


# --- S3: lost answers and conflicts -----------------------------------------------------------------


def _put_answers(monkeypatch: pytest.MonkeyPatch, *before: Any) -> list[int]:
    """Have ``put_object`` pass through ``before`` (functions of the real call) in turn, then be itself."""
    client, turns, calls = s3.client(), list(before), []
    real = client.put_object

    def put(**values: Any) -> Any:
        calls.append(1)
        return turns.pop(0)(lambda: real(**values)) if turns else real(**values)

    monkeypatch.setattr(client, "put_object", put)
    return calls


def _refuse(status: int, code: str) -> ClientError:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")  # type: ignore[arg-type]


def test_a_stored_write_whose_answer_was_lost_is_success(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stored_then_asked_again(real: Any) -> Any:
        real()
        return real()  # what boto3's own retry does: the server says 412

    _put_answers(monkeypatch, stored_then_asked_again)
    assert storage.write_if(f"{bucket}/m.json", b"mine", None)
    _put_answers(monkeypatch, stored_then_asked_again)
    assert not storage.write_if(f"{bucket}/m.json", b"another", None)
    assert storage.read_bytes(f"{bucket}/m.json") == b"mine"


def test_a_conflicting_operation_is_tried_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(_: Any) -> Any:
        raise _refuse(409, "ConditionalRequestConflict")

    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    calls = _put_answers(monkeypatch, conflict, conflict)
    assert storage.write_if(f"{bucket}/m.json", b"mine", None)
    assert len(calls) == 3
    _put_answers(monkeypatch, *[conflict] * 8)
    with pytest.raises(TimeoutError, match="409"):
        storage.write_if(f"{bucket}/n.json", b"mine", None)


def test_other_refusals_are_not_taken_for_an_answer(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any) -> Any:
        raise _refuse(500, "InternalError")

    _put_answers(monkeypatch, broken)
    with pytest.raises(ClientError):
        storage.write_if(f"{bucket}/m.json", b"mine", None)
    assert storage.read_tagged(f"{bucket}/m.json") is None


def test_a_body_cut_off_is_asked_for_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import IncompleteReadError

    storage.write_bytes(f"{bucket}/a", b"0123456789")
    client = s3.client()
    real, turns = client.get_object, [1, 1]

    class Cut:
        def read(self) -> bytes:
            raise IncompleteReadError(actual_bytes=3, expected_bytes=10)

    def get(**values: Any) -> Any:
        return real(**values) | ({"Body": Cut()} if turns and turns.pop() else {})

    monkeypatch.setattr(client, "get_object", get)
    monkeypatch.setattr(s3.time, "sleep", lambda seconds: None)
    assert storage.read_bytes(f"{bucket}/a") == b"0123456789"
    turns += [1] * 6
    with pytest.raises(IncompleteReadError):
        storage.read_bytes(f"{bucket}/a")


def test_a_stream_refuses_an_object_replaced_meanwhile(bucket: str) -> None:
    path = f"{bucket}/a"
    storage.write_bytes(path, b"old" * 100)
    with storage.open_stream(path, chunk_bytes=10) as stream:
        stream.read(10)
        storage.write_bytes(path, b"new" * 100)
        with pytest.raises(ClientError, match=r"\(PreconditionFailed\)"):
            stream.read(10)


def test_mistakes_with_buckets_and_keys_are_the_users(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for call in (
        lambda: storage.expand("s3://absent/x"),
        lambda: storage.expand("s3://absent/*.gz"),
        lambda: storage.expand("s3://absent"),
        lambda: storage.write_bytes("s3://absent/x", b""),
        lambda: storage.write_if("s3://absent/x", b"", None),
    ):
        with pytest.raises(UserError, match="there is no such bucket"):
            call()
    with pytest.raises(UserError, match="names no bucket"):
        storage.read_bytes("s3:///x")
    with pytest.raises(UserError, match="is no address on S3"):
        storage.read_bytes("s3://no bucket!/x")
    with monkeypatch.context() as changed:
        changed.setenv("AWS_ENDPOINT_URL", "localhost-without-scheme")
        s3._client.cache_clear()
        with pytest.raises(UserError, match="the AWS settings cannot be used"):
            storage.read_bytes(f"{bucket}/x")
    s3._client.cache_clear()


def test_no_keys_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    s3._client.cache_clear()
    with pytest.raises(UserError, match="no credentials"):
        s3.settings()
    with pytest.raises(UserError, match="no credentials"):
        storage.read_bytes("s3://bucket/x")
    s3._client.cache_clear()


# --- the same for both ----------------------------------------------------------------------------


def test_bytes_ranges_and_streams(place: str) -> None:
    path, data = f"{place}/deep/file.bin", bytes(range(256)) * 40
    storage.write_bytes(path, data)
    assert storage.read_bytes(path) == data
    assert storage.read_bytes(path, 100, 50) == data[100:150]
    assert storage.read_bytes(path, 10_000) == data[10_000:]
    assert storage.read_bytes(path, 5, 0) == b""
    with storage.open_stream(path, 7, chunk_bytes=1000) as stream:
        parts = []
        while part := stream.read(333):
            parts.append(part)
    assert b"".join(parts) == data[7:]
    found = storage.stat(path)
    assert found
    assert found.size == len(data)
    assert storage.fetch_all([path, path]) == [data, data]
    storage.delete([path, path])
    assert storage.stat(path) is None
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(path)


def test_tags_change_with_contents(place: str) -> None:
    path = f"{place}/x"
    storage.write_bytes(path, b"one")
    first = storage.stat(path)
    storage.write_bytes(path, b"two")
    second = storage.stat(path)
    assert first
    assert second
    assert first.tag != second.tag


NAMES = ("a/x.warc.gz", "a/y.warc.gz", "a/b/z.warc.gz", "a/b/z.txt", "c/x1.gz", "c/x2.gz", "a-b.gz", "a.b+c.gz")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/*.warc.gz", ["x.warc.gz", "y.warc.gz"]),
        ("a/**/*.warc.gz", ["b/z.warc.gz", "x.warc.gz", "y.warc.gz"]),
        ("**/z.*", ["a/b/z.txt", "a/b/z.warc.gz"]),
        ("*/x?.gz", ["c/x1.gz", "c/x2.gz"]),
        ("c/x[!1].gz", ["x2.gz"]),
        ("c/x[1-2].gz", ["x1.gz", "x2.gz"]),
        ("a/x.warc.gz", ["x.warc.gz"]),
        ("a", ["b/z.warc.gz", "x.warc.gz", "y.warc.gz"]),
        ("a/", ["b/z.warc.gz", "x.warc.gz", "y.warc.gz"]),
        ("a.b+*.gz", ["a.b+c.gz"]),
        ("a[/]x.warc.gz", None),
        ("a*x.warc.gz", None),
        ("nothing/*", None),
        ("absent", None),
    ],
)
def test_patterns(place: str, pattern: str, names: list[str] | None) -> None:
    for name in NAMES:
        storage.write_bytes(f"{place}/{name}", name.encode())
    if names is None:
        with pytest.raises(UserError, match="no such file, or nothing there to read"):
            storage.expand(f"{place}/{pattern}", (".warc.gz",))
        return
    found = storage.expand(f"{place}/{pattern}", (".warc.gz",))
    assert [name for name, _ in found] == names
    assert all(storage.read_bytes(entry.path).decode().endswith(name) for name, entry in found)


def test_s3a_is_another_name_of_s3(bucket: str) -> None:
    storage.write_bytes(f"{bucket}/a/x.gz", b"1")
    want = storage.expand(f"{bucket}/a/*.gz")
    assert storage.expand(f"s3a://{bucket.removeprefix('s3://')}/a/*.gz") == want
    assert storage.expand(bucket) == [("a/x.gz", want[0][1])]


def test_patterns_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("x.gz", b"")
    storage.write_bytes("d/y.gz", b"")
    assert [name for name, _ in storage.expand("*.gz")] == ["x.gz"]
    assert [name for name, _ in storage.expand("./d/*.gz")] == ["y.gz"]
    assert [name for name, _ in storage.expand("**/*.gz")] == ["d/y.gz", "x.gz"]


@given(st.text(st.characters(codec="ascii", exclude_characters="*?["), min_size=1, max_size=20))
def test_a_pattern_without_wildcards_matches_itself_alone(name: str) -> None:
    import re

    rule = re.compile(storage._regex(name))
    assert rule.fullmatch(name)
    assert not rule.fullmatch(name + "x")


def test_a_folder_that_cannot_be_read_does_not_look_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(str(tmp_path / "open" / "x"), b"")
    (tmp_path / "shut").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        storage.list_files(str(tmp_path))
    assert storage.list_files(str(tmp_path / "absent")) == []


def _write_half(path: str, data: bytes) -> None:
    with storage.write_stream(path) as stream:
        stream.write(data)
        raise RuntimeError


@pytest.mark.parametrize("size", [0, 1000, 5 << 20, (13 << 20) + 5])
def test_a_written_stream_stands_whole_or_not_at_all(place: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", 5 << 20)
    data, path = os.urandom(size), f"{place}/out/file"
    with storage.write_stream(path) as stream:
        for begin in range(0, size, 3 << 20):
            assert stream.write(memoryview(data)[begin : begin + (3 << 20)]) == len(data[begin : begin + (3 << 20)])
    assert storage.read_bytes(path) == data
    if storage.is_s3(place):
        with pytest.raises(RuntimeError):
            _write_half(f"{place}/half", data)
        assert [entry.path for entry in storage.list_files(place)] == [path]
        assert not s3.client().list_multipart_uploads(Bucket="bucket").get("Uploads")


def test_upload_and_parquet(place: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    local = tmp_path / "t.parquet"
    table = pa.table({"a": [1, 2, 3]})
    pq.write_table(table, local)
    storage.upload(local, f"{place}/up/t.parquet")
    system, inner = storage.parquet_filesystem(f"{place}/up/t.parquet")
    assert pq.read_table(inner, filesystem=system).equals(table)
