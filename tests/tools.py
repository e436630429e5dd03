"""Tools that tests use and Go builds, kept in a cache outside the repository.

``python tests/tools.py minio`` builds the S3 server of the tests, ``python tests/tools.py k8s`` the two
that render and check manifests. Nothing that ships needs them; tests skip where they are absent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

MODULES = {
    "minio": "github.com/minio/minio@latest",
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.6.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0",
}
GROUPS = {"minio": ("minio",), "k8s": ("kustomize", "kubeconform")}


def folder() -> Path:
    """Where built tools are kept: ``$XDG_CACHE_HOME/millrace/bin``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "millrace" / "bin"


def find(name: str) -> str | None:
    """The tool's path in the cache or on PATH, or None."""
    built = folder() / name
    return str(built) if built.exists() else shutil.which(name)


def build(name: str) -> int:
    """Build one tool unless the cache has it; the exit status, what is missing said in one line."""
    target = folder() / name
    if target.exists():
        print(f"{name}: already at {target}")
        return 0
    go = shutil.which("go")
    if go is None:
        print(f"{name}: building it needs Go (https://go.dev/dl); its tests skip without it", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}: building {MODULES[name]} (minutes, once) …", flush=True)
    started = time.monotonic()
    made = subprocess.run(
        [go, "install", MODULES[name]], env=os.environ | {"GOBIN": str(target.parent)}, capture_output=True, text=True
    )
    if made.returncode:
        last = made.stderr.strip().splitlines()[-1:] or ["no message"]
        print(f"{name}: go install failed: {last[0]}", file=sys.stderr)
        return 1
    print(f"{name}: {target} in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    wanted = [name for group in sys.argv[1:] for name in GROUPS.get(group, (group,))]
    if not wanted or not set(wanted) <= MODULES.keys():
        sys.exit(f"usage: python tests/tools.py {'|'.join(GROUPS)}")
    sys.exit(max(build(name) for name in wanted))
