"""Objects written as streams: each part is on its way while the next one fills."""

from __future__ import annotations

import base64
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from dataeng import s3

PART_BYTES, AT_ONCE = 16 << 20, 4  # a part must leave within boto3's 60 seconds, also over a slow line
PARTS_BEFORE_DOUBLE = 2_000  # S3 takes 10,000 parts


class Upload:
    """What is written goes to an object that is seen once ``finish`` returns.

    ``AT_ONCE`` + 1 parts are held in memory at most. Bodies are `bytearray`s: of `bytes` boto3 makes a file, which is
    sent in pieces of 16 KB, a step of Python each; one of these is sent, summed and copied outside Python's lock.
    """

    def __init__(self, path: str) -> None:
        self.path, self.client = path, s3.client()
        self.bucket, self.key = s3.split(path)
        self.size, self.upload, self.number = PART_BYTES, "", 0
        self.summed = self.client.meta.config.request_checksum_calculation != "when_required"
        self.pool = ThreadPoolExecutor(AT_ONCE, "upload")
        self.flying: deque[Future[bytearray]] = deque()
        self.parts: dict[int, dict[str, Any]] = {}
        self.buffer, self.filled = bytearray(self.size), 0

    def write(self, data: Any) -> int:
        """Take bytes (any contiguous buffer); raises what went wrong with those before."""
        source = np.frombuffer(data, np.uint8) if memoryview(data).nbytes else np.empty(0, np.uint8)
        begin = 0
        while begin < len(source):
            count = min(self.size - self.filled, len(source) - begin)
            into = np.frombuffer(self.buffer, np.uint8, count, self.filled)
            np.copyto(into, source[begin : begin + count])
            begin, self.filled = begin + count, self.filled + count
            if self.filled == self.size:
                del into  # a bytearray that is seen through cannot be cut
                self._send()
                self.buffer, self.filled = self._room(), 0
        return len(source)

    def flush(self) -> None:
        """Nothing to do: parts leave when they are full."""

    def _send(self) -> None:
        """Put the buffer on its way as the next part."""
        if not self.upload:
            more = {"ChecksumAlgorithm": "CRC32"} if self.summed else {}
            with s3.errors(self.path):
                made = self.client.create_multipart_upload(Bucket=self.bucket, Key=self.key, **more)
            self.upload = made["UploadId"]
        self.number += 1
        self.flying.append(self.pool.submit(self._part, self.number, self.buffer))
        if self.number % PARTS_BEFORE_DOUBLE == 0:
            self.size *= 2

    def _part(self, number: int, body: bytearray) -> bytearray:
        """Send one part; its buffer comes back."""
        sums = self._sums(body)
        with s3.errors(self.path):
            answer = self.client.upload_part(
                Bucket=self.bucket, Key=self.key, UploadId=self.upload, PartNumber=number, Body=body, **sums
            )
        self.parts[number] = {"ETag": answer["ETag"], "PartNumber": number, **sums}
        return body

    def _sums(self, body: bytearray) -> dict[str, str]:
        """What the store compares the bytes with that come to it."""
        return {"ChecksumCRC32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()} if self.summed else {}

    def _room(self) -> bytearray:
        """An empty buffer: one that has been sent, as fresh memory costs as much as the copying."""
        free = self.flying.popleft().result() if len(self.flying) >= AT_ONCE else bytearray(self.size)
        return free if len(free) == self.size else bytearray(self.size)

    def finish(self) -> None:
        """Send what is left; the object stands when this returns."""
        del self.buffer[self.filled :]
        if not self.upload:  # it fits one request
            with s3.errors(self.path):
                self.client.put_object(Bucket=self.bucket, Key=self.key, Body=self.buffer, **self._sums(self.buffer))
        else:
            if self.buffer:
                self._send()
            for sent in self.flying:
                sent.result()
            parts = [self.parts[number] for number in sorted(self.parts)]
            with s3.errors(self.path):
                self.client.complete_multipart_upload(
                    Bucket=self.bucket, Key=self.key, UploadId=self.upload, MultipartUpload={"Parts": parts}
                )
        self.pool.shutdown()

    def abort(self) -> None:
        """Leave nothing of it in the store."""
        self.pool.shutdown(cancel_futures=True)
        if self.upload:
            with s3.errors(self.path):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.key, UploadId=self.upload)


@contextmanager
def stream(path: str) -> Iterator[Upload]:
    """A stream to write an object with; it is there after the block, or, where the block raises, nothing of it."""
    made = Upload(path)
    try:
        yield made
        made.finish()
    except BaseException:
        made.abort()
        raise
