"""Fixtures of all tests: the repository, and the development data where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import minio as minio_server
import pytest
import tools
from hypothesis import settings

# How long an example takes depends on what else the machine does: no deadlines.
settings.register_profile("millrace", deadline=None)
settings.load_profile("millrace")


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


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A MinIO server of the module's own: the AWS environment variables that reach it (`make minio` builds it)."""
    if tools.find("minio") is None:
        pytest.skip("minio is not built: make minio (needs Go)")
    with minio_server.server(tmp_path_factory.mktemp("minio") / "data") as environment:
        yield environment
