"""Capture files for tests: seeded records in every container, and ways to damage them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import random
import zlib
from typing import NamedTuple

import zstandard


class Sample(NamedTuple):
    """A capture file with its records: URL, block and the bytes of the file that each rests on."""

    data: bytes
    blocks: dict[str, bytes]
    ranges: dict[str, tuple[int, int]]
    name: str


def url_of(number: int) -> str:
    """The URL of a numbered record."""
    return f"http://example.org/{number}"


def block_of(body: bytes) -> bytes:
    """An HTTP answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body


def warc_record(number: int, block: bytes, kind: str = "response", length: int | None = None, digest=False) -> bytes:
    """A WARC record with what follows it."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Target-URI: {url_of(number)}\r\n"
    )
    if digest:
        value = base64.b32encode(hashlib.sha1(block, usedforsecurity=False).digest()).decode()
        head += f"WARC-Block-Digest: sha1:{value}\r\n"
    head += f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    return head.encode() + block + b"\r\n\r\n"


def arc_record(number: int, block: bytes, version: int = 1) -> bytes:
    """An ARC record with what follows it."""
    more = "" if version == 1 else " 200 - - 0 x.arc"
    return f"{url_of(number)} 192.0.2.1 20260102030405 text/html{more} {len(block)}\n".encode() + block + b"\n"


def bodies(seed: int, count: int) -> list[bytes]:
    """Bodies that compress well and others that do not at all."""
    draw = random.Random(seed)
    return [
        draw.randbytes(draw.randint(0, 900)) if n % 3 else b"<p>text %d</p>" % n * draw.randint(0, 90)
        for n in range(count)
    ]


def dictionary(records: list[bytes]) -> bytes:
    """A zstd dictionary that suits such records."""
    return zstandard.train_dictionary(1024, [record[:400] for record in records] * 40).as_bytes()


def _skippable(payload: bytes) -> bytes:
    return b"\x5d\x2a\x4d\x18" + len(payload).to_bytes(4, "little") + payload


def _member(data: bytes, level: int) -> bytes:
    return gzip.compress(data, level, mtime=0)


def pack(records: list[bytes], container: str, level: int) -> list[bytes]:
    """The file's frames; for ``one`` and ``split`` records do not begin where frames do."""
    if container in ("plain", "digest", "arc", "arc2"):
        return records
    if container == "one":
        return [_member(b"".join(records), level)]
    if container == "groups":
        return [_member(b"".join(records[n : n + 3]), level) for n in range(0, len(records), 3)]
    if container == "split":
        text = b"".join(records)
        return [_member(text[n : n + 700], level) for n in range(0, len(text), 700)]
    if container in ("gz", "arc.gz"):
        return [_member(record, level) for record in records]
    params = zstandard.ZstdCompressionParameters(write_checksum=True, write_content_size=level == 0)
    if container == "zst":
        return [zstandard.ZstdCompressor(compression_params=params).compress(record) for record in records]
    trained = dictionary(records)
    packer = zstandard.ZstdCompressor(compression_params=params, dict_data=zstandard.ZstdCompressionDict(trained))
    payload = zstandard.compress(trained) if level else trained
    return [_skippable(payload), *(packer.compress(record) for record in records)]


CONTAINERS = {
    "gz": "x.warc.gz",
    "one": "x.warc.gz",
    "groups": "x.warc.gz",
    "split": "x.warc.gz",
    "zst": "x.warc.zst",
    "zst-dictionary": "x.warc.zst",
    "plain": "x.warc",
    "digest": "x.warc",
    "arc": "x.arc",
    "arc2": "x.arc",
    "arc.gz": "x.arc.gz",
}


def _reach(member: bytes, size: int) -> int:
    """How many bytes of a member its first ``size`` bytes of text rest on."""
    inflater, made = zlib.decompressobj(31), 0
    for place in range(len(member)):
        made += len(inflater.decompress(member[place : place + 1]))
        if made >= size:
            return place + 1
    return len(member)


def sample(container: str, seed: int, count: int = 6, level: int = 6) -> Sample:
    """A sound file of seeded records in a container."""
    contents = [block_of(body) for body in bodies(seed, count)]
    if container.startswith("arc"):
        records = [arc_record(n, block, 2 if container == "arc2" else 1) for n, block in enumerate(contents)]
    else:
        records = [warc_record(n, block, digest=container == "digest") for n, block in enumerate(contents)]
    frames = pack(records, container, level)
    starts = [sum(map(len, frames[:n])) for n in range(len(frames) + 1)]
    # Alone in a broken member a record is taken for hit: the first one rests on its second's beginning as well.
    ranges, text, beginning = {}, 0, len("WARC/1.0\r\nWARC-Type:")
    for number, record in enumerate(records):
        end = text + len(record)
        if container == "one":
            place = (0, _reach(frames[0], end + beginning * (number == 0)))
        elif container == "groups":
            first = sum(len(r) for r in records[: number // 3 * 3])
            reach = _reach(frames[number // 3], end - first + beginning * (number % 3 == 0))
            place = (starts[number // 3], starts[number // 3] + reach)
        elif container == "split":
            place = (starts[text // 700], starts[-(-end // 700)])
        else:
            shift = container == "zst-dictionary"
            place = (starts[number + shift], starts[number + shift + 1])
        ranges[url_of(number)] = place
        text = end
    return Sample(b"".join(frames), {url_of(n): b for n, b in enumerate(contents)}, ranges, CONTAINERS[container])


def damage(data: bytes, how: str, start: int, size: int, noise: bytes) -> tuple[bytes, int, int]:
    """The data damaged, and the region [first, last) of the old data that was touched (empty for an insertion)."""
    end = min(len(data), start + size)
    if how == "end":
        return data[:start], start, len(data)
    if how == "insert":
        return data[:start] + noise + data[start:], start, start
    if how == "duplicate":
        return data[:end] + data[start:end] + data[end:], end, end
    middle = b"" if how == "cut" else bytes(byte ^ 0x5A for byte in data[start:end])
    return data[:start] + middle + data[end:], start, end


def untouched(place: tuple[int, int], first: int, last: int) -> bool:
    """Whether a record's bytes stand as they were: nothing in them was changed, and nothing was put between them."""
    return place[1] <= first or place[0] >= last


def gzip_file(data: bytes, name: str) -> bytes:
    """A member whose header holds a file name."""
    buffer = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=buffer) as file:
        file.write(data)
    return buffer.getvalue()
