"""Local paths and s3:// alike: read, write, list, and write on a condition.

Endpoint, region and keys come from the standard AWS environment variables and config files.

``python -m dataeng.storage gc ROOT --older-than 7d [--yes]`` lists (deletes) what no manifest names.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from dataeng import s3
from dataeng.cli import UserError


@dataclass(frozen=True)
class Entry:
    """A file: its path, size in bytes, modification time (seconds) and what changes with its contents."""

    path: str
    size: int
    modified: float
    tag: str


def is_s3(path: str) -> bool:
    """Whether a path stands on object storage."""
    return path.startswith(("s3://", "s3a://"))


def plain(path: str) -> str:
    """A path as this package writes it: ``s3://`` for s3a://, no slash at its end (but the root's)."""
    path = re.sub(r"^s3a://", "s3://", path)
    return path if path.endswith("://") else path.rstrip("/") or path[:1]


def join(*parts: str) -> str:
    """Path parts put together by single slashes."""
    return "/".join([parts[0].rstrip("/"), *(part.strip("/") for part in parts[1:])])


def read_bytes(path: str, start: int = 0, length: int | None = None, tag: str | None = None) -> bytes:
    """A file's bytes, or ``length`` of them from ``start``; raises FileNotFoundError.

    With ``tag`` an object that was replaced since is refused (S3 only), so that ranges fit together.
    """
    if not is_s3(path):
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)
    if length == 0:
        return b""
    whole = start == 0 and length is None
    more = {} if whole else {"Range": f"bytes={start}-" + ("" if length is None else str(start + length - 1))}
    return s3.get(path, **more, **({"IfMatch": tag} if tag else {}))[0]


class _S3Stream:
    """A file-like reader over ranged requests: a broken connection costs one range, not the file."""

    def __init__(self, path: str, start: int, chunk_bytes: int) -> None:
        self.path, self.position, self.chunk_bytes = path, start, chunk_bytes
        found = stat(path)
        if found is None:
            raise FileNotFoundError(path)
        self.size, self.tag, self.buffer = found.size, found.tag, b""

    def read(self, size: int = -1) -> bytes:
        wanted = self.size if size < 0 else size
        parts: list[bytes] = []
        while wanted > 0 and (self.buffer or self.position < self.size):
            if not self.buffer:
                length = min(self.chunk_bytes, self.size - self.position)
                self.buffer = read_bytes(self.path, self.position, length, self.tag)
                self.position += len(self.buffer)
            part, self.buffer = self.buffer[:wanted], self.buffer[wanted:]
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self.buffer = b""


@contextmanager
def open_stream(path: str, start: int = 0, chunk_bytes: int = 8 << 20) -> Iterator[IO[bytes]]:
    """The file from byte ``start`` on as a stream whose ``read`` holds one chunk in memory."""
    if is_s3(path):
        stream = _S3Stream(path, start, chunk_bytes)
        yield cast(IO[bytes], stream)
        stream.close()
    else:
        with open(path, "rb") as file:
            file.seek(start)
            yield file


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole, replacing what stood there (locally by rename, so never half)."""
    if is_s3(path):
        bucket, key = s3.split(path)
        with s3.errors(path):
            s3.client().put_object(Bucket=bucket, Key=key, Body=data)
        return
    temporary = _write_temporary(path, data)
    os.replace(temporary, path)
    _sync_folder(path)


def upload(local: str | Path, path: str) -> None:
    """Copy a local file to ``path`` without reading it into memory."""
    if is_s3(path):
        bucket, key = s3.split(path)
        with s3.errors(path):
            s3.client().upload_file(str(local), bucket, key)
        return
    import shutil

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    shutil.copyfile(local, temporary)
    os.replace(temporary, path)


@contextmanager
def write_stream(path: str) -> Iterator[IO[bytes]]:
    """A stream to write a new file with, little of it in memory. An object is seen after the block or not at all.

    A local file stands where it belongs from its first byte on, with what a block that raises had written.
    """
    if is_s3(path):
        from dataeng import uploads

        with uploads.stream(path) as sent:
            yield cast(IO[bytes], sent)
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            yield file


def _write_temporary(path: str, data: bytes) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_durable(paths: list[str]) -> None:
    """Have local files reach the disk, so that no manifest outlives them; on S3 they have."""
    for path in paths:
        if not is_s3(path):
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def read_tagged(path: str) -> tuple[bytes, str] | None:
    """A file's bytes with the tag that ``write_if`` compares, or None where there is none."""
    try:
        if not is_s3(path):
            data = read_bytes(path)
            return data, hashlib.sha256(data).hexdigest()
        return s3.get(path)
    except FileNotFoundError:
        return None


def write_if(path: str, data: bytes, tag: str | None) -> bool:
    """Write if the file is still what ``tag`` says (None: absent). True if ``data`` now stands there.

    Of several writers with one tag exactly one wins. An answer lost on the way is made good by
    reading back: ``data`` must therefore be the writer's own, as a manifest's ``attempt`` makes it.
    """
    return _write_if_s3(path, data, tag) if is_s3(path) else _write_if_local(path, data, tag)


def _write_if_local(path: str, data: bytes, tag: str | None) -> bool:
    temporary = _write_temporary(path, data)
    try:
        if tag is None:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        else:
            with open(os.path.join(os.path.dirname(path) or ".", ".lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                now = read_tagged(path)
                if now is None or now[1] != tag:
                    return False
                os.replace(temporary, path)
        _sync_folder(path)
        return True
    finally:
        Path(temporary).unlink(missing_ok=True)


def _write_if_s3(path: str, data: bytes, tag: str | None) -> bool:
    from botocore.exceptions import ClientError

    bucket, key = s3.split(path)
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    for attempt in range(8):
        try:
            with s3.errors(path):
                s3.client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
            return True
        except FileNotFoundError:  # If-Match on a file that is gone
            return False
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 412:
                now = read_tagged(path)
                return now is not None and now[0] == data
            if status != 409:
                raise
            time.sleep(0.1 * 2**attempt)
    raise TimeoutError(f"{path}: eight conditional writes met a conflicting operation (409)")


def stat(path: str) -> Entry | None:
    """A file's entry, or None where there is none."""
    if not is_s3(path):
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(path, found.st_size, found.st_mtime, str(found.st_mtime_ns))
    bucket, key = s3.split(path)
    try:
        with s3.errors(path):
            head = s3.client().head_object(Bucket=bucket, Key=key) if key else None
    except FileNotFoundError:
        head = None
    if head is None:
        s3.need_bucket(path)  # a HEAD says 404 for a missing bucket too
        return None
    return Entry(path, head["ContentLength"], head["LastModified"].timestamp(), head["ETag"])


def _not_passed_over(error: OSError) -> None:
    """A folder that is not there has no files; one that cannot be read must not look empty."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def list_files(folder: str) -> list[Entry]:
    """All files below a folder, sorted by path; none where the folder is missing."""
    if is_s3(folder):
        bucket, key = s3.split(folder)
        prefix = key.rstrip("/") + "/" if key.strip("/") else ""
        pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        with s3.errors(folder):
            found = [
                Entry(f"s3://{bucket}/{item['Key']}", item["Size"], item["LastModified"].timestamp(), item["ETag"])
                for page in pages
                for item in page.get("Contents", [])
                if not item["Key"].endswith("/")
            ]
        return sorted(found, key=lambda entry: entry.path)
    walk = os.walk(folder, onerror=_not_passed_over)
    paths = (os.path.join(base, name) for base, _, names in walk for name in names)
    entries = (stat(path) for path in paths)
    return sorted((entry for entry in entries if entry), key=lambda entry: entry.path)


def fixed_part(pattern: str) -> str:
    """The folder of a pattern before its first wildcard; a plain path's folder is its parent."""
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return (head.rpartition("/")[0] or "/") if "/" in head else "."


def expand(pattern: str, endings: tuple[str, ...] = ()) -> list[tuple[str, Entry]]:
    """The files that a path, folder or pattern (``*``, ``**``) names, each with its relative name.

    The relative name is the path below the pattern's fixed part (a folder's own path, a file's
    parent). ``endings`` limits folders to files with such names. Raises UserError where there is none.
    """
    pattern = plain(pattern)
    if not re.search(r"[*?\[]", pattern):
        single = None if (not is_s3(pattern) and os.path.isdir(pattern)) else stat(pattern)
        if single:
            return [(pattern.rpartition("/")[2], single)]
        base, found = pattern, list_files(pattern)
        found = [entry for entry in found if entry.path.endswith(endings or ("",))]
    else:
        base = fixed_part(pattern)
        rule = re.compile(_regex(pattern.removeprefix("./")))
        found = [entry for entry in list_files(base) if rule.fullmatch(entry.path.removeprefix("./"))]
    if not found:
        raise UserError(f"{pattern}: no such file, or nothing there to read")
    return [(entry.path.removeprefix(base).lstrip("/"), entry) for entry in found]


_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _regex(pattern: str) -> str:
    """The regular expression of a pattern: ``*`` stays within one folder, ``**`` does not."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]]+\])", pattern)
    return "".join(_WILDCARDS.get(part) or _one_of(part) or re.escape(part) for part in parts)


def _one_of(part: str) -> str:
    """The regular expression of a set such as ``[0-9]`` or ``[!a]``; empty where ``part`` is none."""
    if part[:1] != "[" or len(part) < 3:
        return ""
    inner = part[2:-1] if part[1] == "!" else part[1:-1]
    escaped = re.sub(r"([\\\[^&~|])", r"\\\1", inner)
    return f"(?!/)[{'^' if part[1] == '!' else ''}{escaped}]"


def delete(paths: list[str]) -> None:
    """Delete files; those already gone are passed over."""
    for path in paths:
        if is_s3(path):
            bucket, key = s3.split(path)
            with s3.errors(path):
                s3.client().delete_object(Bucket=bucket, Key=key)
        else:
            Path(path).unlink(missing_ok=True)


def parquet_filesystem(path: str) -> tuple[Any, str]:
    """pyarrow's file system for a path, and the path as that file system wants it."""
    from pyarrow import fs

    if not is_s3(path):
        return fs.LocalFileSystem(), path
    settings = s3.settings()
    scheme, _, host = (settings.endpoint or "").partition("://")
    more = {"endpoint_override": host, "scheme": scheme} if host else {}
    system = fs.S3FileSystem(
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        session_token=settings.token,
        region=settings.region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=10),
        **more,
    )
    return system, path.partition("://")[2]


def fetch_all(paths: list[str], workers: int = 16) -> list[bytes]:
    """The bytes of many small files, read side by side, in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(read_bytes, paths))


if __name__ == "__main__":
    from dataeng.garbage import main

    main()
