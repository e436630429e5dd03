"""A site that every machine has: Python's own documentation, as `pydoc` renders it, on loopback.

Run as a file, it serves until its standard input ends and prints its port first. Each page is rendered
in a forked process, so pages come out the same in any order, and two at once. Imports the standard library alone.
"""

from __future__ import annotations

import os
import pydoc
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ForkingMixIn

HOST = "pydoc.localhost"  # the name in addresses, so that they do not hold the port of one run
# Modules that act on import, open windows, belong to tests or were installed beside the library.
LEFT_OUT = (
    r"(antigravity|this|idlelib|turtle|turtledemo|_?tkinter|test|lib2to3|ensurepip|pip|setuptools|pkg_resources"
    r"|__main__|__p?hello__|_distutils_hack|_?sitebuiltins|sitecustomize|usercustomize|_?xx\w*|_test\w*)"
)
# Where an object stood in memory, which pydoc leaves in defaults of parameters.
_ADDRESS = re.compile(r"(?: |&nbsp;)at(?: |&nbsp;)0x[0-9a-fA-F]{6,16}")
_REFUSED = re.compile(rf"/(get\?key=)?{LEFT_OUT}(\.[\w.]*)?(\.html)?")
# Crawlers are asked to leave out those, private modules, and the page search.
_ROBOTS = "User-agent: *\n" + "".join(
    f"Disallow: /{name}\n"
    for name in (
        "_",
        "antigravity",
        "this.",
        "idlelib",
        "turtle",
        "tkinter",
        "test.",
        "lib2to3",
        "ensurepip",
        "xx",
        "search",
        "get",
        "pydoc_data",
    )
)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET with pydoc's pages, robots.txt, or 404 for what is left out or fails to import."""

    def do_GET(self) -> None:
        """Send one page."""
        if self.path == "/robots.txt":
            self._send(200, "text/plain", _ROBOTS)
        elif _REFUSED.fullmatch(self.path) or self.path.endswith(".css"):
            self._send(404, "text/html", "<html><body>left out</body></html>")
        else:
            page = _ADDRESS.sub("", pydoc._url_handler(self.path, "text/html"))  # type: ignore[attr-defined]
            for folder in (sys.base_prefix, sys.prefix):  # where this machine keeps Python is no one's business
                page = page.replace(folder, "/python")
            self._send(404 if "<title>Pydoc: Error - " in page else 200, "text/html", page)

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """The Server header."""
        return "pydoc"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ForkingMixIn, HTTPServer):
    max_children = 8
    request_queue_size = 64


def main() -> None:
    """Serve on a free port of loopback, print the port, end with standard input."""
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


@contextmanager
def serve() -> Iterator[int]:
    """The site in a process of its own; gives its port.

    The environment stays out of the process: the page of the module `os` shows it.
    """
    process = subprocess.Popen(
        [sys.executable, "-S", "-P", "-s", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONHASHSEED": "0", "COLUMNS": "80"},
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline()
        if not port.strip().isdigit():
            raise RuntimeError("the pydoc server did not start")
        yield int(port)
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main()
