"""A MinIO server of a test's own: on loopback, at a free port, with random keys, stopped by its process id.

``python tests/tools.py minio`` builds it. A test tool only: nothing that ships starts or needs it.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tools

START_SECONDS = 60


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """Serve ``folder`` while the block runs; gives the AWS environment variables that reach it."""
    program = tools.find("minio")
    if program is None:
        raise FileNotFoundError("minio is not built: python tests/tools.py minio")
    address = f"127.0.0.1:{_free_port()}"
    user, password = secrets.token_hex(8), secrets.token_hex(16)
    own = {"MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "minio.log", "wb") as log:
        process = subprocess.Popen(
            [program, "server", str(folder), "--address", address, "--quiet"],
            env=os.environ | own,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(f"http://{address}/minio/health/live", process, folder.parent / "minio.log")
        yield {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": password,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"minio did not start: {log.read_text(errors='replace')[-500:]}")
