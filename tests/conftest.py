"""Fixtures of all tests: the repository, and the development data where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir(repo: Path) -> Path:
    """The development data (DATA_DIR, by default ../shared/data); tests that need it skip without it."""
    path = Path(os.environ.get("DATA_DIR", repo.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"{path}: no development data")
    return path
