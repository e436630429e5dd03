"""What a published stage says of itself: ``manifest.json`` and the entries in it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict

FORMAT = 1


class FileEntry(BaseModel):
    """A published file: its path below the stage's folder, rows (or tokens' documents) and bytes."""

    model_config = ConfigDict(extra="allow")
    path: str
    rows: int
    bytes: int


class TableEntry(BaseModel):
    """A published table: its rows, the order-independent hash of them, its files."""

    model_config = ConfigDict(extra="allow")
    rows: int = 0
    hash: str = "0" * 32
    files: list[FileEntry] = []


class Manifest(BaseModel):
    """``manifest.json``: all that a reader of the stage may rely on. ``details`` is the step's own."""

    model_config = ConfigDict(extra="allow")
    stage: str
    format: int = FORMAT
    version: int
    attempt: str
    fingerprint: str
    config: dict[str, Any]
    inputs: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    dropped_by: dict[str, int] = {}
    nondeterministic: int = 0
    tables: dict[str, TableEntry] = {}
    details: dict[str, Any] = {}
    versions: dict[str, str] = {}
    started: str = ""
    seconds: float = 0.0

    def encoded(self) -> bytes:
        """The manifest as the JSON that is published."""
        return (json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n").encode()
