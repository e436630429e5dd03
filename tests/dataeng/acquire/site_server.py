"""Hosts on loopback whose pages a test makes up, and what a crawl of them recorded."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from warcio.archiveiterator import ArchiveIterator

from dataeng.acquire.crawl import Config, run_crawl

AGENT = "millrace/0.1 (web crawler of the millrace project)"
Answer = tuple[int, dict[str, str], bytes]


class Site:
    """Pages by host and path: bytes, an answer, or a function of the request's headers that gives one."""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, str], bytes | Answer | Callable] = {}
        self.asked: list[tuple[str, str, float]] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.before: Callable[[str, str], None] = lambda host, path: None

    def put(self, host: str, **pages) -> None:
        for path, page in pages.items():
            self.pages[host, "/" + path] = page

    def paths(self, host: str = "a.test") -> list[str]:
        return [path for name, path, _ in self.asked if name == host]


@contextmanager
def serving():
    """A site on a port of its own."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            host = self.headers["Host"].partition(":")[0]
            with site.lock:
                site.asked.append((host, self.path, time.monotonic()))
                site.running[host] += 1
                site.most[host] = max(site.most[host], site.running[host])
            try:
                site.before(host, self.path)
                self.reply(site.pages.get((host, self.path), (404, {}, b"nothing")))
            except OSError:
                pass
            finally:
                with site.lock:
                    site.running[host] -= 1

        def reply(self, page):
            if callable(page):
                page = page(self)
                if page is None:
                    return
            if isinstance(page, bytes):
                page = (200, {"Content-Type": "text/html"}, page)
            status, headers, body = page
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    site.port, site.server = server.server_address[1], server
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


def config(site, *hosts, **more) -> Config:
    seeds = [f"http://{host}:{site.port}/" for host in hosts or ("a.test",)]
    values = {"seeds": seeds, "delay_seconds": 0, "allow_private": True, "retries": 1, "timeout_seconds": 5}
    return Config(**values | more)


def crawled(tmp_path, config, before=()):
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    files, counts = run_crawl(config, folder, [str(path) for path in before])
    return files, counts


def records(files, kinds=("response",)):
    """Every record as warcio, a reader that is not this project's, sees it: type, path, headers, status, payload."""
    found = []
    for path in files:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type in kinds:
                    url = record.rec_headers.get_header("WARC-Target-URI")
                    status = record.http_headers.get_statuscode() if record.http_headers else None
                    found.append(
                        (
                            record.rec_type,
                            "/" + url.split("/", 3)[3],
                            record.rec_headers,
                            status,
                            record.content_stream().read(),
                        )
                    )
    return found


def paths(files, kinds=("response",)):
    return [path for _, path, _, _, _ in records(files, kinds)]


def page(*links: str) -> bytes:
    return "".join(f'<a href="{link}">x</a>' for link in links).encode()


def dripping(first: bytes, drop: bytes):
    """A server that sends ``first`` and then ``drop`` for ever; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    def drip(connection):
        try:
            connection.sendall(first)
            while True:
                connection.sendall(drop)
                time.sleep(0.02)
        except OSError:
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"
