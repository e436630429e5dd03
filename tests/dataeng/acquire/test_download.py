"""Downloads from a server that is busy, hangs up, forgets ranges and changes files: the bytes come out right."""

from __future__ import annotations

import random
import time

import pytest
from range_server import Files, serving

from dataeng.acquire import remote
from dataeng.acquire.download import Bounds, download
from dataeng.acquire.remote import Busy, Changed, Cut, Manners, Pauses, Store, Web, retry_after
from dataeng.cli import Failure, UserError

DATA = random.Random(1).randbytes(1_000_003)
MANNERS = Manners("test/1", timeout_seconds=5, retries=3, first_pause=0.001)


@pytest.fixture
def served():
    files = Files()
    files.files["a/x.gz"] = DATA
    with serving(files) as files.base:
        yield files


def fetch(served, tmp_path, range_bytes=100_000, manners=MANNERS, **bounds) -> bytes:
    target = tmp_path / "part"
    pauses = Pauses(manners, sleep=lambda _: None)
    download(Web(served.base, manners), "a/x.gz", target, pauses, Bounds(range_bytes, **bounds))
    return target.read_bytes()


def test_a_file_comes_in_ranges(served, tmp_path):
    assert fetch(served, tmp_path) == DATA
    assert served.statuses("a/x.gz") == [206] * 11
    assert served.bytes_asked("a/x.gz")[-1] == "bytes=1000000-1099999"


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_busy_servers_are_asked_again(served, tmp_path, status):
    served.faults["a/x.gz"] = [status, status, None, status, "hang up", status]
    assert fetch(served, tmp_path) == DATA
    assert served.statuses("a/x.gz").count(206) == 11


@pytest.mark.parametrize("fault", ["cut", "whole", "wrong range", "hang up"])
def test_a_fault_in_the_middle(served, tmp_path, fault):
    served.faults["a/x.gz"] = [None, fault, None, fault]
    assert fetch(served, tmp_path) == DATA


def test_what_was_cut_is_gone_on_with_not_begun_anew(served, tmp_path):
    served.faults["a/x.gz"] = [None, "cut"]
    assert fetch(served, tmp_path, 400_000) == DATA
    starts = [int(asked[6:].split("-")[0]) for asked in served.bytes_asked("a/x.gz")]
    assert starts == [0, 400_000, 600_000, 1_000_000]


def test_every_byte_survives_any_order_of_faults(served, tmp_path):
    rng = random.Random(3)
    for _ in range(10):
        faults = rng.choices([None, "cut", "whole", "wrong range", "hang up", 503], [8, 1, 1, 1, 1, 1], k=30)
        served.faults["a/x.gz"] = faults
        patient = Manners("test/1", timeout_seconds=5, retries=30, first_pause=0.001)
        assert fetch(served, tmp_path, rng.randrange(50_000, 600_000), patient) == DATA
        (tmp_path / "part").unlink()


def test_a_killed_download_goes_on(served, tmp_path):
    served.faults["a/x.gz"] = [None] * 3 + [503] * 4
    with pytest.raises(Failure, match="given up after 4 tries"):
        fetch(served, tmp_path)
    assert (tmp_path / "part").stat().st_size == 300_000
    served.asked.clear()
    assert fetch(served, tmp_path) == DATA
    assert served.bytes_asked("a/x.gz")[0] == "bytes=300000-399999"
    served.asked.clear()
    assert fetch(served, tmp_path) == DATA  # whole already: only asked whether it still is the same
    assert served.statuses("a/x.gz") == [416]


@pytest.mark.parametrize("tag", [None, 'W/"weak"', '"opaque-1"'])
def test_a_file_that_changes_is_read_from_its_beginning(served, tmp_path, tag):
    other = random.Random(2).randbytes(900_000)

    def change():
        served.files["a/x.gz"] = other
        if tag:
            served.tags["a/x.gz"] = tag.replace("weak", "weaker").replace("1", "2")

    if tag:
        served.tags["a/x.gz"] = tag
    served.faults["a/x.gz"] = [None, None, None, change]
    assert fetch(served, tmp_path) == other


def test_a_file_that_never_stays_the_same_is_given_up(served, tmp_path):
    served.faults["a/x.gz"] = [lambda n=n: served.tags.update({"a/x.gz": f'"{n}"'}) for n in range(100)]
    with pytest.raises(Failure, match="changed 6 times"):
        fetch(served, tmp_path)


def test_bytes_that_do_not_have_the_checksum_are_fetched_again(served, tmp_path):
    served.faults["a/x.gz"] = [None, "flip"]
    assert fetch(served, tmp_path) == DATA
    assert served.statuses("a/x.gz").count(206) == 22


def test_a_tag_that_looks_like_a_checksum_but_is_none(served, tmp_path):
    served.tags["a/x.gz"] = '"' + "0" * 32 + '"'
    assert fetch(served, tmp_path) == DATA


def test_bytes_that_differ_each_time_are_refused(served, tmp_path):
    served.faults["a/x.gz"] = ["flip"] * 11 + [None, *["flip"] * 10]
    with pytest.raises(Failure, match="MD5"):
        fetch(served, tmp_path)


def test_bounds(served, tmp_path):
    with pytest.raises(Failure, match="more than file_bytes"):
        fetch(served, tmp_path, file_bytes=1000)
    with pytest.raises(UserError, match="is not there"):
        download(Web(served.base, MANNERS), "missing", tmp_path / "m", Pauses(MANNERS))
    with pytest.raises(Failure, match="given up"):
        download(Web("http://127.0.0.1:1", MANNERS), "x", tmp_path / "m", Pauses(MANNERS, sleep=lambda _: None))


def test_an_empty_file(served, tmp_path):
    served.files["a/x.gz"] = b""
    assert fetch(served, tmp_path) == b""


def test_a_local_folder_is_read_the_same_way(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "x").write_bytes(DATA)
    source = Store(str(tmp_path / "base"))
    download(source, "x", tmp_path / "part", Pauses(MANNERS), Bounds(300_000))
    assert (tmp_path / "part").read_bytes() == DATA
    assert remote.read(source, "x", 5, 10, Pauses(MANNERS)) == DATA[5:15]
    with pytest.raises(Changed):
        source.open("x", 0, 5, "another")


def test_a_range_out_of_a_whole_answer(served):
    served.faults["a/x.gz"] = ["whole", "cut", 503]
    pauses = Pauses(MANNERS, sleep=lambda _: None)
    assert remote.read(Web(served.base, MANNERS), "a/x.gz", 700_000, 1000, pauses) == DATA[700_000:701_000]
    assert remote.read(Web(served.base, MANNERS), "a/x.gz", 7, 1000, pauses) == DATA[7:1007]


def test_the_pause_doubles_has_jitter_and_keeps_what_is_asked():
    slept: list[float] = []
    pauses = Pauses(Manners("x", first_pause=1.0), sleep=slept.append)
    for failures in range(1, 12):
        pauses.after(Cut("x"), failures)
    for number, pause in enumerate(slept):
        assert 0.5 * min(2**number, 300) <= pause <= min(2**number, 300)
    pauses.after(Busy("x", 20.0), 1)
    pauses.wait()
    assert 15 < slept[-1] <= 20


def test_retry_after():
    assert retry_after("7") == 7.0
    assert retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    soon = retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60)))
    assert soon is not None
    assert 50 < soon <= 60
    assert [retry_after(value) for value in (None, "", "soon", "-1")] == [None] * 4
