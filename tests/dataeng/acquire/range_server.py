"""A file server on loopback that behaves as object stores do, and misbehaves as a test tells it to."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Files:
    """What is served: ``files`` by path; ``faults`` are taken one a request: a status, "cut", "whole", "header" …"""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.faults: dict[str, list[Any]] = defaultdict(list)
        self.asked: list[tuple[str, str | None, int]] = []  # path, Range, status
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    def tag(self, path: str) -> str:
        return self.tags.get(path) or '"' + hashlib.md5(self.files[path]).hexdigest() + '"'

    def statuses(self, path: str) -> list[int]:
        return [status for asked, _, status in self.asked if asked == path]

    def bytes_asked(self, path: str) -> list[str | None]:
        return [ranges for asked, ranges, _ in self.asked if asked == path]


class Handler(BaseHTTPRequestHandler):
    """One connection; ``served`` is set by the server's own subclass."""

    served: Files
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        served = self.served
        with served.lock:
            served.under_way += 1
            served.most_under_way = max(served.most_under_way, served.under_way)
        try:
            self.serve(self.path.lstrip("/"))
        except OSError:
            self.close_connection = True
        finally:
            with served.lock:
                served.under_way -= 1

    def fault(self, path):
        with self.served.lock:
            faults = self.served.faults[path] or self.served.faults["*"]
            fault = faults.pop(0) if faults else None
        return fault() if callable(fault) else fault

    def serve(self, path):
        fault = self.fault(path)
        if path not in self.served.files:
            self.answer(path, 404, b"nothing")
        elif isinstance(fault, int):
            self.answer(path, fault, b"later", **{"Retry-After": "0"})
        elif fault == "hang up":
            self.close_connection = True
            self.note(path, 0)
        elif self.headers.get("If-Match", self.served.tag(path)) != self.served.tag(path):
            self.answer(path, 412, b"")
        else:
            self.send_file(path, fault)

    def send_file(self, path, fault):
        data, tag = self.served.files[path], self.served.tag(path)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found or fault == "whole":
            return self.answer(path, 200, data, cut=fault == "cut", ETag=tag)
        start = int(found[1])
        end = min(int(found[2]) + 1 if found[2] else len(data), len(data))
        if start >= len(data):
            return self.answer(path, 416, b"", ETag=tag, **{"Content-Range": f"bytes */{len(data)}"})
        shown = start + 1 if fault == "wrong range" else start
        body = data[start:end]
        if fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        place = f"bytes {shown}-{end - 1}/{len(data)}"
        return self.answer(path, 206, body, cut=fault == "cut", ETag=tag, **{"Content-Range": place})

    def note(self, path, status):
        with self.served.lock:
            self.served.asked.append((path, self.headers.get("Range"), status))

    def answer(self, path, status, body, cut=False, **headers):
        self.note(path, status)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that hangs up is part of the tests


@contextmanager
def serving(served: Files) -> Iterator[str]:
    """The address under which the files stand."""
    server = Server(("127.0.0.1", 0), type("Mine", (Handler,), {"served": served}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
