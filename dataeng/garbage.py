"""Collects what no manifest names: files of attempts that were killed or replaced, uploads never completed.

``python -m dataeng.storage gc ROOT --older-than 7d [--yes]`` lists it; ``--yes`` deletes it.
No stage does this by itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dataeng import s3, storage
from dataeng.cli import UserError, run
from dataeng.storage import Entry

USAGE = "usage: python -m dataeng.storage gc ROOT --older-than 7d [--yes]"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_ATTEMPT = r"[0-9a-f]{32}"
# Only what stages and trainers themselves write: STAGE/data/[SLICE/]ATTEMPT[.TABLE]/… and
# STAGE/checkpoints/FINGERPRINT/step-N/ATTEMPT/…; a user's own files below a root are never touched.
_DATA = re.compile(rf"(?P<stage>[^/]+)/data/(?:[^/]+/)?(?P<attempt>{_ATTEMPT})(?:\.\w+)?/.+")
_CHECKPOINT = re.compile(rf"(?P<stage>[^/]+/checkpoints/[^/]+/step-\d+)/(?P<attempt>{_ATTEMPT})/.+")
_TEMPORARY = re.compile(rf".*\.{_ATTEMPT}\.tmp")
_MANIFEST = re.compile(r"(?P<stage>[^/]+(?:/checkpoints/[^/]+/step-\d+)?)/(?:manifest|slices/[^/]+)\.json")


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was begun and neither completed nor aborted."""

    bucket: str
    key: str
    id: str
    started: float


def seconds_of(text: str) -> float:
    """A duration such as 7d, 12h or 30m in seconds; raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not found:
        raise UserError(f"--older-than {text}: must be a number with s, m, h, d or w, such as 7d")
    return float(found[1]) * _UNITS[found[2]]


def _manifest(path: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read_bytes(path))
        if not isinstance(found["attempt"], str):
            raise TypeError("attempt is no text")
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path}: is damaged ({type(error).__name__}: {error})"
        raise UserError(f"{problem}: nothing was deleted; repair or delete it first") from None
    return dict(found)


def named(root: str, paths: Iterable[str]) -> set[tuple[str, str]]:
    """The (stage, attempt) pairs whose files some manifest names; raises UserError for a damaged manifest.

    A merged stage's files stand in the attempts of its slices: they are taken from the files' paths.
    """
    found: set[tuple[str, str]] = set()
    for path in paths:
        match = _MANIFEST.fullmatch(path)
        if not match:
            continue
        manifest = _manifest(storage.join(root, path))
        found.add((match["stage"], manifest["attempt"]))
        for table in (manifest.get("tables") or {}).values():
            for file in table["files"]:
                inside = _DATA.fullmatch(f"{match['stage']}/{file['path']}")
                if inside:
                    found.add((match["stage"], inside["attempt"]))
    return found


def garbage(root: str, older_than: float, now: float | None = None) -> list[Entry]:
    """Files below a root that no manifest names, in attempts untouched for ``older_than`` seconds.

    An attempt goes as a whole, by its newest file: one that still writes keeps all it has.
    """
    limit = (time.time() if now is None else now) - older_than
    entries = storage.list_files(root)
    inside = {entry.path.removeprefix(storage.join(root, "")).lstrip("/"): entry for entry in entries}
    attempts: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    loose = []
    for path, entry in inside.items():
        match = _DATA.fullmatch(path) or _CHECKPOINT.fullmatch(path)
        if match:
            attempts[(match["stage"], match["attempt"])].append(entry)
        elif _TEMPORARY.fullmatch(path) and entry.modified <= limit:
            loose.append(entry)
    # Manifests are read after the listing: what was published meanwhile is named by them.
    kept = named(root, [path for path in _now(root) if _MANIFEST.fullmatch(path)])
    for key, files in attempts.items():
        if key not in kept and max(entry.modified for entry in files) <= limit:
            loose += files
    return sorted(loose, key=lambda entry: entry.path)


def _now(root: str) -> list[str]:
    return [entry.path.removeprefix(storage.join(root, "")).lstrip("/") for entry in storage.list_files(root)]


def uploads(root: str, older_than: float, now: float | None = None) -> list[Upload]:
    """Multipart uploads below an s3:// root that were begun more than ``older_than`` seconds ago.

    A server that lists uploads by exact key alone (MinIO) shows none; it ends them by itself.
    """
    if not storage.is_s3(root):
        return []
    bucket, key = s3.split(root)
    limit = (time.time() if now is None else now) - older_than
    prefix = key.rstrip("/") + "/" if key else ""
    with s3.errors(root):
        pages = s3.client().get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        found = [
            Upload(bucket, item["Key"], item["UploadId"], item["Initiated"].timestamp())
            for page in pages
            for item in page.get("Uploads", [])
        ]
    return [upload for upload in found if upload.started <= limit]


def collect(root: str, older_than: float, delete: bool, now: float | None = None) -> tuple[list[Entry], list[Upload]]:
    """What is garbage below a root; with ``delete`` it is deleted, and pending uploads are aborted."""
    root = root.rstrip("/")
    entries, pending = garbage(root, older_than, now), uploads(root, older_than, now)
    if delete:
        storage.delete([entry.path for entry in entries])
        for upload in pending:
            with s3.errors(root):
                s3.client().abort_multipart_upload(Bucket=upload.bucket, Key=upload.key, UploadId=upload.id)
        if not storage.is_s3(root):
            _remove_empty({os.path.dirname(entry.path) for entry in entries}, root)
    return entries, pending


def _remove_empty(folders: set[str], root: str) -> None:
    for folder in sorted(folders, key=len, reverse=True):
        while len(folder) > len(root) and not (os.path.isdir(folder) and os.listdir(folder)):
            if os.path.isdir(folder):
                os.rmdir(folder)
            folder = os.path.dirname(folder)


def _main(arguments: Sequence[str]) -> None:
    rest = [argument for argument in arguments if argument != "--yes"]
    if len(rest) != 4 or rest[0] != "gc" or rest[2] != "--older-than":
        raise UserError(USAGE)
    delete = "--yes" in arguments
    entries, pending = collect(rest[1], seconds_of(rest[3]), delete)
    for entry in entries:
        print(f"{entry.size:>14,}  {entry.path}")
    for upload in pending:
        print(f"{'upload':>14}  s3://{upload.bucket}/{upload.key}")
    size = sum(entry.size for entry in entries)
    verb = "deleted" if delete else "not named by any manifest; add --yes to delete them"
    print(f"{len(entries)} files, {size:,} bytes, {len(pending)} uploads: {verb}", file=sys.stderr)


def main() -> None:
    """Entry point of ``python -m dataeng.storage gc``."""
    run(_main)
