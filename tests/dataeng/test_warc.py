"""Captures are read past any damage; what is not damaged comes out, each with its place."""

from __future__ import annotations

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng import warc
from dataeng.warc import Capture, Damage, Skipped


def record(number: int, body: bytes, kind: str = "response", length: int | None = None) -> bytes:
    """One WARC record, uncompressed."""
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    length = len(block) if length is None else length
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\n"
        f"WARC-Target-URI: http://example.org/{number}\r\nContent-Length: {length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def members(count: int = 6, seed: int = 0, level: int = 6) -> list[bytes]:
    """Gzip members of small records, some of them of bytes that do not compress."""
    draw = random.Random(seed)
    bodies = [
        draw.randbytes(draw.randint(0, 900)) if n % 3 else b"<p>text</p>" * draw.randint(0, 90) for n in range(count)
    ]
    return [gzip.compress(record(n, body), level, mtime=0) for n, body in enumerate(bodies)]


def read(tmp_path, data: bytes, name: str = "x.warc.gz", **more):
    path = tmp_path / name
    path.write_bytes(data)
    return list(warc.read(str(path), name, **more))


def check_cover(items, data: bytes) -> None:
    """Items stand one after another and leave no byte unaccounted for but padding by zeros."""
    position, start = 0, 0
    for item in items:
        assert not data[position : item.offset].strip(b"\0")
        assert item.offset >= start  # what is read of a broken member may reach into the next
        position, start = max(position, item.offset + item.length), item.offset
    assert not data[position:].strip(b"\0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("warc")


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 20),
    level=st.sampled_from([0, 6]),
    where=st.floats(0, 1, exclude_max=True),
    size=st.integers(1, 700),
    how=st.sampled_from(["flip", "cut", "insert", "duplicate", "end"]),
    noise=st.binary(min_size=1, max_size=64),
)
def test_what_is_untouched_comes_out(folder, seed, level, where, size, how, noise):
    parts = members(seed=seed, level=level)
    data = b"".join(parts)
    start = int(where * len(data))
    end = min(len(data), start + size)
    middle = {
        "flip": bytes(byte ^ 0x5A for byte in data[start:end]),
        "cut": b"",
        "insert": noise + data[start:end],
        "duplicate": data[start:end] * 2,
        "end": b"",
    }[how]
    after = b"" if how == "end" else data[end:]
    touched = (start, len(data) if how == "end" else start if how == "insert" else end)
    broken = data[:start] + middle + after
    items = read(folder, broken)
    found = {item.url for item in items if isinstance(item, Capture)}
    position = 0
    for number, part in enumerate(parts):
        first, last = position, position + len(part)
        position = last
        inserted_inside = how == "insert" and first < start < last
        if last <= touched[0] or (first >= touched[1] and how != "end") or (how == "insert" and not inserted_inside):
            assert f"http://example.org/{number}" in found
    originals = {gzip.decompress(part).partition(b"\r\n\r\n")[2][:-4] for part in parts}
    assert all(item.block in originals for item in items if isinstance(item, Capture))
    check_cover(items, broken)


def test_flipped_bytes_are_one_region_and_the_rest_is_read(tmp_path):
    parts = members()
    parts[2] = parts[2][:30] + bytes(8) + parts[2][38:]
    items = read(tmp_path, b"".join(parts))
    assert [type(item) for item in items] == [Capture, Capture, Damage, Capture, Capture, Capture]
    assert (items[2].offset, items[2].length) == (len(parts[0]) + len(parts[1]), len(parts[2]))


def test_a_failed_checksum_is_damage(tmp_path):
    parts = members()
    parts[1] = parts[1][:-8] + bytes(4) + parts[1][-4:]
    assert isinstance(read(tmp_path, b"".join(parts))[1], Damage)


def test_a_file_cut_short_says_so(tmp_path):
    data = b"".join(members())
    last = read(tmp_path, data[:-5])[-1]
    assert isinstance(last, Damage)
    assert last.reason == "cut short"


@pytest.mark.parametrize("claimed", [0, 3, 10**6, 10**17])
def test_a_wrong_length_in_a_whole_member_is_mended(tmp_path, claimed):
    data = gzip.compress(record(0, b"<p>hello</p>", length=claimed)) + members(2)[1]
    items = read(tmp_path, data)
    assert len(items) == 2
    assert items[0].block.endswith(b"<p>hello</p>")


@pytest.mark.parametrize("claimed", [10**6, 10**12, 10**17])
def test_a_plain_record_that_claims_too_much_loses_no_other(tmp_path, claimed):
    data = record(0, b"a") + record(1, b"b", length=claimed) + record(2, b"c")
    items = read(tmp_path, data, "x.warc")
    assert [getattr(item, "url", None) for item in items] == ["http://example.org/0", None, "http://example.org/2"]
    assert isinstance(items[1], Damage)


def test_plain_records_past_garbage_are_read(tmp_path):
    data = record(0, b"a") + b"\x00garbage WARC/1.0 not at a line's start\r\n" + record(1, b"b")
    kinds = [type(item) for item in read(tmp_path, data, "x.warc")]
    assert kinds == [Capture, Damage, Capture]


def test_a_file_compressed_as_one_member_gives_all_its_records(tmp_path):
    data = gzip.compress(b"".join(record(n, b"x" * n) for n in range(5)))
    items = read(tmp_path, data)
    assert [item.index for item in items] == [0, 1, 2, 3, 4]
    assert {item.offset for item in items} == {0}


def test_a_record_past_the_bound_is_passed_over(tmp_path):
    data = gzip.compress(record(0, bytes(200_000))) + gzip.compress(record(1, b"b"))
    items = read(tmp_path, data, most=100_000)
    assert items[0] == Damage("x.warc.gz", 0, len(data) - items[1].length, "too long")
    assert isinstance(items[1], Capture)
    plain = read(tmp_path, record(0, bytes(200_000)) + record(1, b"b"), "x.warc", most=100_000)
    assert [type(item) for item in plain] == [Damage, Capture]


def test_a_bomb_ends(tmp_path):
    data = gzip.compress(record(0, bytes(50_000_000))) + gzip.compress(record(1, b"b"))
    items = read(tmp_path, data, most=100_000)
    assert [type(item) for item in items] == [Damage, Capture]


def test_other_types_are_skipped(tmp_path):
    items = read(tmp_path, gzip.compress(record(0, b"", kind="request")) + gzip.compress(record(1, b"")))
    assert [type(item) for item in items] == [Skipped, Capture]


def test_names_do_not_decide_the_format(tmp_path):
    assert isinstance(read(tmp_path, record(0, b"a"), "x.warc.gz")[0], Capture)
    assert isinstance(read(tmp_path, members(1)[0], "x.warc")[0], Capture)


def test_an_empty_file_has_no_items(tmp_path):
    assert read(tmp_path, b"") == []


def test_every_intact_page_of_the_labelled_crawl_comes_out(data_dir):
    crawl = data_dir / "crawl-a"
    found = {}
    for path in sorted(crawl.glob("*.warc.gz")):
        found |= {(i.file, i.offset): i.length for i in warc.read(str(path), path.name) if isinstance(i, Capture)}
    with gzip.open(crawl / "labels.jsonl.gz", "rt") as lines:
        labels = [json.loads(line) for line in lines]
    missing = [lb for lb in labels if not lb["damaged"] and found.get((lb["file"], lb["offset"])) != lb["length"]]
    assert missing == []
    assert len(labels) > 4000


def zeros(size: int, number: int, kind: str = "response") -> bytes:
    """A record of a great block that packs small."""
    return record(number, bytes(size), kind)


@pytest.mark.parametrize("kind", ["response", "request"])
def test_a_great_record_among_others_of_one_member_is_passed_over(tmp_path, kind):
    data = gzip.compress(record(0, b"a") + zeros(1_200_000, 1, kind) + record(2, b"c"))
    items = read(tmp_path, data, most=100_000)
    assert [type(item) for item in items] == [Capture, Damage if kind == "response" else Skipped, Capture]
    assert [item.index for item in items] == [0, 1, 2]


@pytest.mark.parametrize("claimed", [10**6, 10**12])
def test_a_great_length_that_lies_in_a_great_member_loses_no_other(tmp_path, claimed):
    draw = random.Random(0)
    others = [record(n, draw.randbytes(3000)) for n in range(2, 60)]
    data = gzip.compress(record(0, b"a") + record(1, b"b", length=claimed) + b"".join(others))
    items = read(tmp_path, data, most=100_000)
    urls = {item.url for item in items if isinstance(item, Capture)}
    assert {f"http://example.org/{n}" for n in range(60)} - urls <= {"http://example.org/1"}


def test_a_member_that_holds_more_than_a_record_may_is_read_record_by_record(tmp_path):
    data = gzip.compress(b"".join(record(n, b"x" * 5000) for n in range(100)))
    items = read(tmp_path, data, most=10_000)
    assert len([item for item in items if isinstance(item, Capture)]) == 100


def test_a_header_of_a_megabyte_and_bytes_that_are_no_utf8(tmp_path):
    url = b"http://example.org/" + b"a" * 1_000_000 + b"\xff\xfe"
    head = b"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: " + url + b"\r\nContent-Length: 2\r\n\r\nab\r\n\r\n"
    items = read(tmp_path, gzip.compress(head) + members(1)[0])
    assert len(items[0].url) > 1_000_000
    assert [item.block[:2] for item in items] == [b"ab", b"HT"]
    assert len(read(tmp_path, head + record(1, b"b"), "x.warc")) == 2


@pytest.mark.parametrize(
    "line",
    [b"WARC/1.0\r\n", b"WARC/1.0\r\nA: b\r\n", b"WARC/1.0\r\nA:", b"WARC/1.0\r\nContent-Length: 99999999\r\n\r\n"],
)
def test_many_openings_of_records_that_are_none_cost_linear_time(tmp_path, line):
    items = read(tmp_path, line * 20_000 + record(0, b"a"), "x.warc")
    assert items[-1].url == "http://example.org/0"
