"""Odd files of other projects' tests: what each holds, by type, and what of it is damaged.

The counts were checked against FastWARC 2.0.1 (or, for ARC, warcio 1.8.1 and the file by eye): the two agree
with them but where a comment says otherwise.
"""

from __future__ import annotations

from collections import Counter

import pytest

from dataeng import warc
from dataeng.warc import Damage

AUT, COMMONS = "archivesunleashed__aut/", "iipc__webarchive-commons/"
SPECS, RESILIPARSE = "iipc__warc-specifications/", "chatnoir-eu__chatnoir-resiliparse/"
JS, PY = "webrecorder__warcio.js/", "webrecorder__warcio/"
EXAMPLE = {"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}
WGET = {"warcinfo": 1, "request": 16, "response": 16, "resource": 3}
HELLO = {"warcinfo": 1, "request": 1, "response": 1, "metadata": 1, "resource": 2}
CHUNKED = {"warcinfo": 1, "response": 1, "request": 1}

TABLE: dict[str, dict[str, int]] = {
    AUT + "example.warc.gz": {"warcinfo": 1, "response": 299, "request": 261, "metadata": 261},
    RESILIPARSE + "warcfile.warc.gz": {"warcinfo": 1, "request": 17, "response": 16, "metadata": 16},
    SPECS + "20130729-heritrix-original.warc.gz": {"response": 1},
    SPECS + "20130729-heritrix-revisit-with-http-headers.warc.gz": {"revisit": 1},
    SPECS + "20141124-heritrix-server-not-modified.warc.gz": {"revisit": 1},
    SPECS + "20141129-heritrix-original.warc.gz": {"response": 1},
    SPECS + "20141129-heritrix-revisit-with-http-headers-and-new-warc-headers.warc.gz": {"revisit": 1},
    SPECS + "hello-world.warc": HELLO,
    # An index and no capture file: one region. warcio takes its lines for ARC headers.
    SPECS + "hello-world.warc.cdx": {"damage": 1},
    SPECS + "hello-world.warc.gz": HELLO,
    # The file's header, dns: and seven pages; no line ends between records, so that warcio stops after the first.
    COMMONS + "IAH-20080430204825-00000-blackbook-truncated.arc": {"arcinfo": 1, "resource": 1, "response": 7},
    COMMONS + "IAH-urls-wget.warc": WGET,
    COMMONS + "IAH-urls-wget.warc.gz": WGET,
    # The length of the response at 2807 counts the line ends behind it, which stops warcio.
    COMMONS + "link-extraction-test.warc": {"warcinfo": 1, "response": 7},
    COMMONS + "mutliple-headers.warc": {"response": 1},
    # Two lengths are wrong (974 for 975 bytes, 371 for 369); the digests say which bytes are meant. FastWARC stops at
    # the first, warcio gives both with a byte too few and two too many.
    JS + "example-bad-length.warc": EXAMPLE,
    JS + "example-iana.org-chunked.warc": CHUNKED,
    JS + "example-resource.warc.gz": {"resource": 1},
    JS + "example-url-agnostic-revisit.warc.gz": {"warcinfo": 1, "revisit": 1},
    JS + "example-wget-bad-target-uri.warc.gz": HELLO,
    JS + "example.warc": EXAMPLE | {"metadata": 1},
    JS + "example.warc.gz": EXAMPLE,
    JS + "post-test-more.warc": {"response": 3, "request": 3},
    JS + "post-test.warc.gz": {"response": 3, "request": 3},
    JS + "redirect.warc": {"response": 1, "request": 1},
    # Lengths of -1, -1 and "abc" beside one sound record; warcio takes all of them for empty records.
    PY + "bad.arc": {"resource": 1, "damage": 2},
    # Several records in one member, which warcio refuses.
    PY + "example-bad-non-chunked.warc.gz": EXAMPLE,
    PY + "example-bad.warc.gz.bad": EXAMPLE | {"warcinfo": 1, "response": 2},
    PY + "example-digest.warc": {"request": 4},
    PY + "example-iana.org-chunked.warc": CHUNKED,
    PY + "example-resource.warc.gz": {"warcinfo": 2, "resource": 1},
    PY + "example-space-in-target-uri.warc.gz": {"warcinfo": 1, "resource": 1},
    # Line ends were rewritten, so that less is there than the 1,591 bytes claimed; warcio gives what there is.
    PY + "example-space-in-url.arc": {"arcinfo": 1, "damage": 1},
    # A length of 973 for 975 bytes, mended by the digest. FastWARC stops behind it, warcio gives 973 bytes.
    PY + "example-trunc.warc": {"warcinfo": 2, "request": 1, "response": 1},
    PY + "example-wget-bad-target-uri.warc.gz": HELLO,
    # warcio follows the body's wrong chunk lengths past the record's end and stops.
    PY + "example-wrong-chunks.warc.gz": {"response": 1, "request": 1},
    PY + "example.arc": {"arcinfo": 1, "response": 1},
    PY + "example.arc.gz": {"arcinfo": 1, "response": 1},
    PY + "example.warc": EXAMPLE,
    PY + "example.warc.gz": EXAMPLE,
    PY + "post-test.warc.gz": {"response": 3, "request": 3},
}


def test_every_odd_file_is_in_the_table(data_dir):
    folder = data_dir / "warc-edge"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(TABLE)
    assert len(TABLE) == 41


@pytest.mark.parametrize("name", TABLE)
def test_odd_files_hold_what_the_table_says(data_dir, name):
    path = data_dir / "warc-edge" / name
    items = list(warc.read(str(path)))
    assert Counter("damage" if isinstance(item, Damage) else item.type for item in items) == TABLE[name]
    assert all(item.length > 0 and item.offset + item.length <= path.stat().st_size for item in items)


def test_a_block_of_each_kind_is_read_whole(data_dir):
    folder = data_dir / "warc-edge"
    sizes = {
        PY + "example.arc": 1591,
        PY + "example.arc.gz": 1591,
        PY + "example.warc.gz": 975,
        JS + "example-bad-length.warc": 975,
        PY + "example-trunc.warc": 975,
        JS + "redirect.warc": 794,
        SPECS + "20130729-heritrix-original.warc.gz": 68892,
    }  # their Content-Length, or what their digest vouches for
    for name, size in sizes.items():
        items = [item for item in warc.read(str(folder / name)) if isinstance(item, warc.Capture)]
        assert [len(item.block) for item in items] == [size]
