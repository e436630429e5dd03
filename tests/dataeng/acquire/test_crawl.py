"""The crawler against a small site that behaves, and misbehaves, on loopback."""

from __future__ import annotations

import gzip
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from pydantic import ValidationError

from dataeng import stage, warc
from dataeng.acquire import crawl, pydoc_site
from dataeng.acquire.crawl import Config, run_crawl
from dataeng.acquire.links import normal
from dataeng.cli import UserError
from dataeng.extract.payload import body_of, message_of
from dataeng.recipe import Recipe
from dataeng.warc import Capture

PAGES = {
    "/": '<a href="/b">b</a> <a href="a?x=1#part">a</a> <a href="/secret/x">s</a> <a href="http://other.invalid/">o</a>'
    '<a href="/old">old</a> <a href="/busy">busy</a> <a href="/down">down</a> <a href="mailto:x@y">m</a>'
    '<a href="/gzip">z</a> <a href="/endless">e</a> <a href="/slow">s</a> <a href="/skip/me">k</a>'
    '<a href="/loop">l</a>',
    "/a?x=1": '<a href="/deep">deep</a>',
    "/b": "<p>b</p>",
    "/new": '<a href="/b">b</a>',
    "/deep": '<a href="/deeper">deeper</a>',
    "/deeper": "too deep",
    "/robots.txt": "User-agent: *\nDisallow: /secret\n",
}


class Site(BaseHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        Site.asked[self.path] += 1
        kind = "text/plain" if self.path == "/robots.txt" else "text/html"
        if self.path == "/old":
            self.answer(301, b"", Location="/new")
        elif self.path == "/loop":
            self.answer(302, b"", Location="/loop2")
        elif self.path == "/loop2":
            self.answer(302, b"", Location="/loop")
        elif self.path == "/busy" and Site.asked["/busy"] < 3:
            self.answer(503, b"later", **{"Retry-After": "0"})
        elif self.path == "/busy":
            self.answer(200, b"<p>at last</p>")
        elif self.path == "/down":
            self.connection.close()
        elif self.path == "/gzip":
            self.answer(200, gzip.compress(b'<a href="/b">packed</a>'), **{"Content-Encoding": "gzip"})
        elif self.path in ("/endless", "/slow"):
            self.trickle(64 << 10 if self.path == "/endless" else 1)
        elif self.path in PAGES:
            self.answer(200, PAGES[self.path].encode(), kind)
        else:
            self.answer(404, b"nothing")

    def answer(self, status, body, kind="text/html", **headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def trickle(self, size):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        try:
            for _ in range(10_000):
                self.wfile.write(b"x" * size)
                time.sleep(0.2 if size == 1 else 0)
        except OSError:
            return

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    Site.asked = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def config(seed: str, **more) -> Config:
    values = {
        "seeds": [seed],
        "delay_seconds": 0,
        "allow_private": True,
        "depth": 2,
        "retries": 2,
        "timeout_seconds": 5,
    }
    return Config(**values | {"exclude": ["/skip/", "/slow", "/endless", "/down"]} | more)


def folder_in(tmp_path):
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    return folder


def crawled(tmp_path, site, **more):
    files, counts = run_crawl(config(site, **more), folder_in(tmp_path))
    items = [item for path in files for item in warc.read(str(path))]
    return counts, items, {item.url.removeprefix(site.rstrip("/")): item for item in items if isinstance(item, Capture)}


def test_what_is_visited_and_recorded(tmp_path, site):
    counts, items, found = crawled(tmp_path, site)
    assert list(found) == [
        "/robots.txt",
        "/",
        "/a?x=1",
        "/b",
        "/busy",
        "/gzip",
        "/loop",
        "/old",
        "/loop2",
        "/new",
        "/deep",
    ]
    assert message_of(found["/old"]).status == 301
    assert body_of(message_of(found["/gzip"]), 1000) == b'<a href="/b">packed</a>'
    assert counts["refused by robots.txt"] == 1
    assert Site.asked["/secret/x"] == Site.asked["/skip/me"] == Site.asked["/deeper"] == 0
    assert max(Site.asked[path] for path in ("/", "/b", "/a?x=1", "/loop")) == 1
    kinds = Counter(item.type if isinstance(item, Capture) else getattr(item, "type", "damage") for item in items)
    assert kinds == {"warcinfo": 1, "response": 11, "request": 11}
    assert len({item.record_id for item in found.values()}) == 11


def test_each_record_is_one_gzip_member(tmp_path, site):
    files, _ = run_crawl(config(site), folder_in(tmp_path))
    data, items = files[0].read_bytes(), list(warc.read(str(files[0])))
    for item in items:
        assert gzip.decompress(data[item.offset : item.offset + item.length]).startswith(b"WARC/1.1\r\n")


def test_busy_servers_are_asked_again(tmp_path, site):
    _, _, found = crawled(tmp_path, site)
    assert Site.asked["/busy"] == 3
    assert message_of(found["/busy"]).status == 200


def test_a_server_that_hangs_up_is_counted_and_the_crawl_goes_on(tmp_path, site):
    counts, _, found = crawled(tmp_path, site, exclude=["/skip/", "/slow", "/endless"], retries=1)
    assert counts["failed"] == 1
    assert Site.asked["/down"] == 2
    assert "/gzip" in found


@pytest.mark.parametrize(("path", "limit"), [("endless", "length"), ("slow", "time")])
def test_bodies_end_at_their_limits(tmp_path, site, path, limit):
    more = {"exclude": [], "include": [path], "response_bytes": 200_000, "timeout_seconds": 1.0}
    _, _, found = crawled(tmp_path, site, **more)
    assert found[f"/{path}"].headers["warc-truncated"] == limit
    assert 0 < len(message_of(found[f"/{path}"]).body) <= 200_000


def test_limits_of_pages_and_depth(tmp_path, site):
    counts, _, found = crawled(tmp_path, site, pages=3)
    assert counts["fetched"] == 3
    assert list(found) == ["/robots.txt", "/", "/a?x=1", "/b"]
    assert list(crawled(tmp_path, site, depth=0)[2]) == ["/robots.txt", "/"]


def test_the_delay_is_kept_between_requests_to_a_host(tmp_path, site):
    started = time.monotonic()
    counts, _, _ = crawled(tmp_path, site, pages=4, delay_seconds=0.2, parallel=4)
    assert counts["fetched"] == 4
    assert time.monotonic() - started >= 3 * 0.2


def test_private_networks_need_leave(tmp_path, site):
    with pytest.raises(UserError, match="allow_private"):
        run_crawl(config(site, allow_private=False), folder_in(tmp_path))


def test_a_host_that_does_not_answer_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="nothing could be fetched"):
        run_crawl(config("http://127.0.0.1:1/", retries=0), folder_in(tmp_path))


@pytest.mark.parametrize("values", [{"seeds": ["ftp://x/"]}, {"seeds": []}, {"seeds": ["http://x/"], "include": ["("]}])
def test_bad_settings_are_refused(values):
    with pytest.raises(ValidationError):
        Config(**values)


def test_the_step_publishes_once_and_is_not_repeated(tmp_path, site):
    table = config(site).model_dump()
    recipe = Recipe("r.toml", str(tmp_path / "run"), 0, {"crawl": table})
    first = crawl.step(recipe)
    asked = sum(Site.asked.values())
    assert crawl.step(recipe) == first
    assert sum(Site.asked.values()) == asked
    assert stage.verify(recipe.root, "crawl") == []
    assert first.counts == {"pages": 10}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.ORG:80#x", "http://example.org/"),
        ("https://example.org:443/a?b=1#c", "https://example.org/a?b=1"),
        ("http://example.org:8080/A", "http://example.org:8080/A"),
    ],
)
def test_addresses_are_compared_in_one_form(url, expected):
    assert normal(url) == expected


def test_the_embedded_site_has_stable_records(tmp_path):
    settings = {"depth": 1, "include": [r"/(json|this|antigravity|os|nonsense)\.html$"]}
    seen = []
    for _ in range(2):
        (path,), _ = run_crawl(config(crawl.EMBEDDED, allow_private=False, **settings), folder_in(tmp_path))
        seen.append({c.url: (c.record_id, message_of(c).body) for c in warc.read(str(path)) if isinstance(c, Capture)})
    assert seen[0] == seen[1]
    root = f"http://{pydoc_site.HOST}/"
    assert set(seen[0]) == {root + page for page in ("robots.txt", "", "json.html", "os.html")}
    assert b"JSON" in seen[0][root + "json.html"][1]
    assert b"PYTHONPATH" not in seen[0][root + "os.html"][1]
