"""A small Common Crawl on loopback: whole files and single records come as they stand, whatever the server does."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from range_server import Files, serving

from dataeng import stage, storage, warc
from dataeng.acquire import cc_index, common_crawl
from dataeng.acquire.cc_index import Place
from dataeng.acquire.common_crawl import Config, is_record
from dataeng.cli import Failure, UserError
from dataeng.extract.captures import Config as Extract
from dataeng.extract.captures import input_entries, input_files
from dataeng.recipe import Recipe
from dataeng.warc import Capture

SNAPSHOT = "CC-MAIN-2030-01"
HOSTS = ("a.example.org", "b.example.org", "www.example.com", "other.net")


def record(url: str, body: bytes) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nContent-Length: {len(block)}\r\n\r\n"
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def snapshot(files: dict[str, bytes]) -> list[dict]:
    """Four capture files of twenty records each, their text files, and an index of two Parquet files."""
    rows, paths = [], []
    for number in range(4):
        path = f"crawl-data/{SNAPSHOT}/segments/1.{number}/warc/part-{number:05}.warc.gz"
        paths.append(path)
        data = b""
        for page in range(20):
            host = HOSTS[page % 4]
            url = f"https://{host}/{'docs' if page < 10 else 'blog'}/{number}-{page}.html"
            member = record(url, f"<p>{url}</p>".encode() * (page + 1))
            rows.append(
                {
                    "url": url,
                    "url_host_name": host,
                    "url_host_registered_domain": ".".join(host.split(".")[-2:]),
                    "fetch_status": 404 if page == 19 else 200,
                    "content_mime_detected": "text/html" if page % 2 else "application/pdf",
                    "content_languages": "deu,eng" if page % 4 == 0 else "eng",
                    "warc_filename": path,
                    "warc_record_offset": len(data),
                    "warc_record_length": len(member),
                }
            )
            data += member
        files[path] = data
        files[path.replace("/warc/", "/wet/").replace("warc.gz", "warc.wet.gz")] = gzip.compress(
            b"WARC/1.0 text", mtime=0
        )
    listed = "\n".join(paths) + "\n"
    files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = gzip.compress(listed.encode())
    files[f"crawl-data/{SNAPSHOT}/wet.paths.gz"] = gzip.compress(
        listed.replace("/warc/", "/wet/").replace("warc.gz", "warc.wet.gz").encode()
    )
    index = f"cc-index/table/cc-main/warc/crawl={SNAPSHOT}/subset=warc/"
    rows.sort(key=lambda row: (row["url_host_registered_domain"], row["url"]))
    for number, some in enumerate((rows[:40], rows[40:])):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(some), sink, row_group_size=10)
        files[f"{index}part-{number}.gz.parquet"] = sink.getvalue().to_pybytes()
    names = [f"{index}part-{n}.gz.parquet" for n in (0, 1)] + [index.replace("=warc/", "=robotstxt/") + "x.parquet"]
    files[f"crawl-data/{SNAPSHOT}/cc-index-table.paths.gz"] = gzip.compress("\n".join(names).encode())
    return rows


@pytest.fixture
def served():
    files = Files()
    files.rows = snapshot(files.files)
    with serving(files) as files.base:
        yield files


def recipe(served, tmp_path, **values) -> Recipe:
    table = {"snapshot": SNAPSHOT, "base": served.base, "pause_seconds": 0.01, **values}
    return Recipe("r.toml", str(tmp_path / "run"), 0, {"common_crawl": table, "extract": {"input": ["common_crawl"]}})


def published(one: Recipe) -> dict[str, bytes]:
    folder = stage.folder_of(one.root, "common_crawl")
    paths = stage.table_paths(folder, stage.need_manifest(one.root, "common_crawl", "x"), "captures")
    return {path.rpartition("/")[2]: storage.read_bytes(path) for path in paths}


def urls(one: Recipe, tmp_path) -> list[str]:
    found = []
    for name, data in sorted(published(one).items()):
        (tmp_path / name).write_bytes(data)
        found += [item.url for item in warc.read(str(tmp_path / name)) if isinstance(item, Capture)]
    return found


@pytest.mark.parametrize(("kind", "ending"), [("warc", ".warc.gz"), ("wet", ".warc.wet.gz")])
def test_whole_files(served, tmp_path, kind, ending):
    one = recipe(served, tmp_path, kind=kind, skip=1, count=2)
    served.faults["*"] = [None, 503, 403, "cut", "hang up"]
    manifest = common_crawl.step(one)
    found = published(one)
    assert list(found) == [f"part-0000{n}{ending}" for n in (1, 2)]
    for name, data in found.items():
        assert data == next(value for path, value in served.files.items() if path.endswith(name))
    assert manifest.counts == {"files": 2, "bytes": sum(map(len, found.values()))}
    assert stage.verify(one.root, "common_crawl") == []
    assert not (tmp_path / "run/common_crawl/partial").exists()


def test_extraction_finds_what_is_published(served, tmp_path):
    one = recipe(served, tmp_path, count=2)
    common_crawl.step(one)
    config: Extract = one.step("extract")
    files = input_files(one, config)
    assert [file["file"] for file in files] == [f"common_crawl/part-0000{n}.warc.gz" for n in (0, 1)]
    assert input_entries(one, config, files)[0]["stage"] == "common_crawl"


def test_a_finished_step_asks_for_nothing_and_more_files_cost_only_the_new_ones(served, tmp_path):
    common_crawl.step(recipe(served, tmp_path, count=2))
    before = len(served.asked)
    common_crawl.step(recipe(served, tmp_path, count=2))
    assert len(served.asked) == before
    more = common_crawl.step(recipe(served, tmp_path, count=4))
    asked = {path for path, _, _ in served.asked[before:]}
    assert {path.rpartition("/")[2] for path in asked} == {"warc.paths.gz", "part-00002.warc.gz", "part-00003.warc.gz"}
    assert more.details["found done"] == 2
    assert stage.verify(str(tmp_path / "run"), "common_crawl") == []


def test_no_more_requests_at_once_than_allowed(served, tmp_path):
    common_crawl.step(recipe(served, tmp_path, count=4, parallel=2, range_bytes=500))
    assert served.most_under_way <= 2


def test_a_killed_run_goes_on(served, tmp_path):
    """A process is killed in the middle of its downloads; the next run asks for no byte that is on disk."""
    paths = sorted(path for path in served.files if path.endswith(".warc.gz"))
    served.faults[paths[2]] = [None, lambda: time.sleep(60)]
    table = {"snapshot": SNAPSHOT, "base": served.base, "count": 4, "parallel": 1, "range_bytes": 1000}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / "r.toml").write_text(f'root = "{tmp_path}/run"\n[common_crawl]\n' + "\n".join(lines))
    process = subprocess.Popen([sys.executable, "-m", "dataeng.acquire.common_crawl", str(tmp_path / "r.toml")])
    while served.faults[paths[2]]:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    served.asked.clear()
    one = Recipe("r.toml", str(tmp_path / "run"), 0, {"common_crawl": table})
    common_crawl.step(one)
    asked = {path: served.bytes_asked(path)[:1] for path in paths}
    assert asked[paths[0]] == asked[paths[1]] == []
    assert asked[paths[2]] == ["bytes=1000-1999"]
    assert asked[paths[3]] == ["bytes=0-999"]
    assert published(one) == {path.rpartition("/")[2]: served.files[path] for path in paths}


def test_an_interrupted_run_ends_soon_and_keeps_what_it_has(served, tmp_path):
    """SIGTERM while a busy server would be waited for: status 130, and the part is gone on with."""
    path = next(path for path in served.files if path.endswith("part-00000.warc.gz"))
    served.faults[path] = [None, *[503] * 50]
    table = {"snapshot": SNAPSHOT, "base": served.base, "range_bytes": 1000, "pause_seconds": 100.0}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / "r.toml").write_text(f'root = "{tmp_path}/run"\n[common_crawl]\n' + "\n".join(lines))
    process = subprocess.Popen([sys.executable, "-m", "dataeng.acquire.common_crawl", str(tmp_path / "r.toml")])
    while 503 not in served.statuses(path):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait() == 130
    served.faults.clear()
    common_crawl.step(Recipe("r.toml", str(tmp_path / "run"), 0, {"common_crawl": table}))
    assert [asked for asked in served.bytes_asked(path) if asked.startswith("bytes=0-")] == ["bytes=0-999"]


def test_two_runs_do_not_work_in_one_folder(served, tmp_path):
    from dataeng.acquire.partial import held

    with held(tmp_path / "run/common_crawl/partial/downloads"), pytest.raises(Failure, match="another run"):
        common_crawl.step(recipe(served, tmp_path))


SELECTIONS = [
    ({"hosts": ["a.example.org"]}, lambda r: r["url_host_name"] == "a.example.org"),
    ({"hosts": ["A.example.org", "other.net"]}, lambda r: r["url_host_name"] in ("a.example.org", "other.net")),
    ({"domains": ["example.org"]}, lambda r: r["url_host_registered_domain"] == "example.org"),
    ({"urls": ["https://other.net/docs/*"]}, lambda r: r["url"].startswith("https://other.net/docs/")),
    ({"urls": ["*/2-*.html"]}, lambda r: "/2-" in r["url"]),
    ({"domains": ["example.org"], "urls": ["*/blog/*"]}, lambda r: "example.org/blog/" in r["url"]),
    ({"domains": ["example.org"], "languages": ["deu"]}, lambda r: r["url_host_name"] == "a.example.org"),
    ({"domains": ["example.org"], "mime_types": ["text/html"]}, lambda r: r["url_host_name"] == "b.example.org"),
    ({"hosts": ["other.net"], "statuses": [404]}, None),
]


@pytest.mark.parametrize(("asked", "meant"), SELECTIONS)
@pytest.mark.parametrize("where", ["web", "folder"])
def test_single_records(served, tmp_path, asked, meant, where):
    values = dict(asked)
    if where == "folder":
        for path, data in served.files.items():
            storage.write_bytes(str(tmp_path / "copy" / path), data)
        values["base"] = str(tmp_path / "copy")
    one = recipe(served, tmp_path, **values)
    manifest = common_crawl.step(one)
    meant = meant or (lambda r: r["url_host_name"] == "other.net" and r["fetch_status"] == 404)
    statuses = asked.get("statuses", [200])
    expected = sorted(row["url"] for row in served.rows if meant(row) and row["fetch_status"] in statuses)
    assert sorted(urls(one, tmp_path)) == expected
    assert manifest.counts["records"] == len(expected) > 0
    assert manifest.counts["damaged"] == 0
    assert stage.verify(one.root, "common_crawl") == []


def test_row_groups_that_cannot_match_are_not_read(served, tmp_path, monkeypatch):
    """Of an index of 50 hosts, one row group each, the footer and little more than one row group is asked for."""
    monkeypatch.setattr(cc_index, "_AHEAD", 4096)
    rows = [
        served.rows[0] | {"url_host_name": f"h{n:02}.test", "url": f"https://h{n:02}.test/{os.urandom(40).hex()}"}
        for n in range(50)
        for _ in range(200)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=200, compression="none", use_dictionary=False)
    index = next(path for path in served.files if path.endswith("part-0.gz.parquet"))
    served.files[index] = sink.getvalue().to_pybytes()
    common_crawl.step(recipe(served, tmp_path, hosts=["h17.test"]))
    ranges = [asked.removeprefix("bytes=").split("-") for asked in served.bytes_asked(index)]
    read = sum(int(end) - int(start) + 1 for start, end in ranges)
    assert read < len(served.files[index]) / 5


def test_neighbours_are_fetched_by_one_request(served, tmp_path):
    path = next(path for path in served.files if path.endswith("part-00000.warc.gz"))
    common_crawl.step(
        recipe(served, tmp_path, domains=["example.org", "example.com", "other.net"], statuses=[200, 404])
    )
    assert len(served.bytes_asked(path)) == 1
    served.asked.clear()
    common_crawl.step(recipe(served, tmp_path, domains=["example.com"], gap_bytes=0))
    assert len(served.bytes_asked(path)) == 5


def test_the_index_may_stand_elsewhere(served, tmp_path):
    for path, data in served.files.items():
        if path.endswith(".parquet"):
            storage.write_bytes(str(tmp_path / "index" / path.rpartition("/")[2]), data)
    one = recipe(served, tmp_path, hosts=["other.net"], index=str(tmp_path / "index"), records=7)
    assert common_crawl.step(one).counts["records"] == 7
    assert not any("cc-index" in path for path, _, _ in served.asked)


def test_records_come_out_equal_however_the_server_behaves(served, tmp_path):
    common_crawl.step(recipe(served, tmp_path / "a", domains=["example.org"]))
    served.faults["*"] = [503, None, "cut", "whole", "wrong range", 403, "hang up", "cut"]
    common_crawl.step(recipe(served, tmp_path / "b", domains=["example.org"]))
    assert published(recipe(served, tmp_path / "a")) == published(recipe(served, tmp_path / "b"))


def test_a_damaged_record_is_kept_and_counted(served, tmp_path):
    path = next(path for path in served.files if path.endswith("part-00000.warc.gz"))
    data = bytearray(served.files[path])
    data[40] ^= 255
    served.files[path] = bytes(data)
    manifest = common_crawl.step(recipe(served, tmp_path, hosts=["a.example.org"]))
    assert (manifest.counts["records"], manifest.counts["damaged"]) == (20, 1)


def test_joining_and_batches():
    places = [Place("a", 0, 10), Place("a", 15, 5), Place("a", 30, 5), Place("b", 35, 5), Place("b", 40, 9)]
    assert cc_index.joined(places, 5, 100) == [places[:2], places[2:3], places[3:]]
    assert cc_index.joined(places, 5, 19) == [[place] for place in places[:3]] + [places[3:]]
    assert cc_index.joined(places, 100, 100) == [places[:3], places[3:]]
    assert cc_index.joined([Place("a", 0, 10), Place("a", 5, 10)], 5, 100) == [[Place("a", 0, 10)], [Place("a", 5, 10)]]
    assert list(cc_index.batches(places[::-1], 2, 100)) == [places[:2], places[2:4], places[4:]]
    assert list(cc_index.batches(places, 9, 16)) == [places[:2], places[2:4], places[4:]]


def test_what_is_a_record():
    whole = record("http://x/", b"x" * 100_000)
    assert is_record(whole)
    for other in (whole[:-1], whole + b"x", whole[1:], gzip.compress(b"no"), b"", b"<html>busy</html>"):
        assert not is_record(other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"skip": 3, "count": 2}, "lists 4 files"),
        ({"snapshot": "CC-MAIN-1999-01"}, "is not there"),
        ({"hosts": ["nowhere.example"]}, "no record"),
        ({"snapshot": "x"}, "snapshot"),
        ({"languages": ["deu"]}, "name hosts, domains or urls"),
        ({"hosts": ["x"], "kind": "wet"}, "whole files"),
        ({"hosts": ["http://x/"]}, "no host name"),
        ({"urls": ["http://[x/*"]}, "no address pattern"),
        ({"base": "/no/such/folder"}, "is not there"),
    ],
)
def test_mistakes_are_told_in_one_line(served, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        common_crawl.step(recipe(served, tmp_path, **values))


@pytest.mark.parametrize(
    "listed", [b"../../etc/passwd\n", b"/etc/passwd\n", b"a/../../b.warc.gz\n", b"http://elsewhere/x.warc.gz\n"]
)
def test_a_hostile_listing_names_no_path_outside(served, tmp_path, listed):
    served.files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = gzip.compress(listed)
    with pytest.raises(UserError, match="is no path of a capture file"):
        common_crawl.step(recipe(served, tmp_path))


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"x" * 1000)[:-4], gzip.compress(b"\n" * (65 << 20))])
def test_a_listing_that_is_none(served, tmp_path, data):
    served.files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = data
    with pytest.raises(UserError, match="is no packed list"):
        common_crawl.step(recipe(served, tmp_path))


def test_an_index_that_is_none(served, tmp_path):
    for path in served.files:
        if path.endswith(".parquet"):
            served.files[path] = b"x" * 100
    with pytest.raises(UserError, match="is no index file"):
        common_crawl.step(recipe(served, tmp_path, hosts=["other.net"]))


def test_defaults_name_the_real_archive():
    assert Config(snapshot=SNAPSHOT).base == "https://data.commoncrawl.org"
