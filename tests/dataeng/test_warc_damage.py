"""Whatever is done to a capture file: each record whose bytes are untouched comes out, equal byte by byte."""

from __future__ import annotations

import capture_files as captures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng import warc
from dataeng.warc import Capture

HOW = ["flip", "cut", "insert", "duplicate", "end"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("warc")


def read(folder, data: bytes, name: str, **more) -> list[warc.Item]:
    path = folder / name
    path.write_bytes(data)
    return list(warc.read(str(path), name, **more))


@pytest.mark.parametrize("container", captures.CONTAINERS)
@pytest.mark.parametrize("level", [0, 6])
def test_a_sound_file_gives_all_its_records_and_no_damage(folder, container, level):
    made = captures.sample(container, 1, level=level)
    items = read(folder, made.data, made.name)
    assert {item.url: item.block for item in items} == made.blocks
    assert [item.url for item in items] == list(made.blocks)


@pytest.mark.parametrize("container", captures.CONTAINERS)
@settings(max_examples=120)
@given(data=st.data())
def test_what_is_untouched_comes_out(folder, container, data):
    made = captures.sample(container, data.draw(st.integers(0, 12)), level=data.draw(st.sampled_from([0, 6])))
    start = data.draw(st.integers(0, len(made.data) - 1))
    how, size = data.draw(st.sampled_from(HOW)), data.draw(st.integers(1, 700))
    noise = data.draw(st.binary(min_size=1, max_size=64))
    broken, first, last = captures.damage(made.data, how, start, size, noise)
    items = read(folder, broken, made.name)
    found = {(item.url, bytes(item.block)) for item in items if isinstance(item, Capture)}
    head = made.ranges[captures.url_of(0)][0]  # of zstd's dictionary, without which nothing can be read
    if container == "zst-dictionary" and not captures.untouched((0, head), first, last):
        return
    for url, place in made.ranges.items():
        if captures.untouched(place, first, last):
            assert (url, made.blocks[url]) in found, (how, start, size)
    assert all(item.length >= 0 and item.offset + item.length <= len(broken) for item in items)


def test_a_length_that_leads_to_the_end_of_the_next_records_line_leads_nowhere(folder):
    made = captures.sample("arc", 0)
    opening = made.data[made.ranges[captures.url_of(1)][0] :].partition(b"\n")[0]
    broken = captures.damage(made.data, "cut", 100, len(opening) + 1, b"")[0]
    found = {item.url for item in read(folder, broken, made.name) if isinstance(item, Capture)}
    assert found >= made.blocks.keys() - {captures.url_of(0)}


@pytest.mark.parametrize("container", ["gz", "zst", "digest"])
@settings(max_examples=60)
@given(data=st.data())
def test_what_a_checksum_covers_comes_out_right_or_not_at_all(folder, container, data):
    made = captures.sample(container, data.draw(st.integers(0, 12)), level=data.draw(st.sampled_from([0, 6])))
    start, size = data.draw(st.integers(0, len(made.data) - 1)), data.draw(st.integers(1, 700))
    noise = data.draw(st.binary(min_size=1, max_size=64))
    broken, _, _ = captures.damage(made.data, data.draw(st.sampled_from(HOW)), start, size, noise)
    blocks = set(made.blocks.values())
    for item in read(folder, broken, made.name):
        if isinstance(item, Capture) and (container != "digest" or _digest_is_legible(item)):
            assert item.block in blocks


def _digest_is_legible(item: Capture) -> bool:
    return warc.agrees(item.headers.get("warc-block-digest"), b"") is not None
