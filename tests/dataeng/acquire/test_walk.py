"""The crawler among several hosts, over a kill, on a second visit, and before sites that mean harm."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest
from warcio.archiveiterator import ArchiveIterator

from dataeng import stage, storage, warc
from dataeng.acquire import crawl, fetch, network
from dataeng.acquire.crawl import Config, run_crawl
from dataeng.acquire.fetch import Exchange, Limits
from dataeng.acquire.links import links, sitemap, target
from dataeng.acquire.network import Private, Unreachable, is_public
from dataeng.acquire.robots import Rules
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.warc import Capture

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


@pytest.fixture
def site(monkeypatch):
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
    site.port = server.server_address[1]
    monkeypatch.setattr(network, "lookup", lambda host, port: ["127.0.0.1"])
    yield site
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


def test_sitemaps_of_all_kinds(tmp_path, site):
    url = f"http://a.test:{site.port}"
    index = f"<sitemapindex><sitemap><loc>{url}/s2.xml.gz</loc></sitemap><sitemap><loc>{url}/s3.txt</loc></sitemap>"
    inner = (
        f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>{url}/one</loc>'
    )
    site.put(
        "a.test",
        **{
            "": page("/linked"),
            "robots.txt": f"Sitemap: {url}/s1.xml\nSitemap: http://elsewhere.test/s.xml".encode(),
            "s1.xml": (index + "</sitemapindex>").encode(),
            "s2.xml.gz": gzip.compress((inner + "</url><url><loc>http://b.test/</loc></url></urlset>").encode()),
            "s3.txt": f"{url}/two\nnot an address\n{url}/private/x\n".encode(),
            "one": b"1",
            "two": b"2",
            "linked": b"3",
        },
    )
    files, counts = crawled(tmp_path, config(site))
    assert paths(files) == [
        *("/robots.txt", "/s1.xml", "/s2.xml.gz", "/s3.txt"),
        *("/", "/linked", "/one", "/private/x", "/two"),
    ]
    assert counts["in sitemaps"] == 4
    _, counts = crawled(tmp_path, config(site, sitemaps=False))
    assert counts["recorded"] == 2
    assert {host for host, _, _ in site.asked} == {"a.test"}


def test_without_a_name_the_usual_sitemap_is_tried(tmp_path, site):
    site.put(
        "a.test",
        **{
            "": b"x",
            "sitemap.xml": f"<urlset><url><loc>http://a.test:{site.port}/y</loc></url></urlset>".encode(),
            "y": b"y",
        },
    )
    files, _ = crawled(tmp_path, config(site))
    assert paths(files) == ["/robots.txt", "/sitemap.xml", "/", "/y"]


def test_a_crawl_delay_is_kept_and_does_not_hold_up_other_hosts(tmp_path, site):
    site.put("a.test", **{"robots.txt": b"User-agent: millrace\nCrawl-delay: 0.3\n", "": page("/1", "/2", "/3")})
    site.put("b.test", **{"": page(*(f"/{n}" for n in range(20)))})
    for host, count in (("a.test", 4), ("b.test", 20)):
        site.put(host, **{str(n): b"x" for n in range(count)})
    crawled(tmp_path, config(site, "a.test", "b.test", parallel=2, sitemaps=False))
    times = [moment for host, _, moment in site.asked if host == "a.test"]
    assert len(times) == 5
    assert min(b - a for a, b in pairwise(times)) >= 0.28
    last = max(moment for host, _, moment in site.asked if host == "b.test")
    assert last < times[-1]
    assert site.most["a.test"] == 1


def test_a_slow_host_does_not_hold_up_another(tmp_path, site):
    site.put("a.test", **{"": page("/1", "/2"), "1": b"x", "2": b"x"})
    site.put("b.test", **{"": page("/1", "/2"), "1": b"x", "2": b"x"})
    fast = threading.Event()

    def before(host, path):
        if host == "a.test" and path == "/":
            fast.wait(30)  # until the other host's last page was asked for
        if (host, path) == ("b.test", "/2"):
            fast.set()

    site.before = before
    _, counts = crawled(tmp_path, config(site, "a.test", "b.test", timeout_seconds=40, sitemaps=False))
    assert fast.is_set()
    assert counts["recorded"] == 6


def test_a_host_that_asks_for_days_between_requests_is_left_alone(tmp_path, site):
    site.put("a.test", **{"robots.txt": b"User-agent: *\nCrawl-delay: 86400\n", "": b"x"})
    with pytest.raises(UserError, match="nothing could be fetched"):
        crawled(tmp_path, config(site))
    assert site.paths() == ["/robots.txt"]


def test_links_between_start_hosts_and_variants_of_a_host(tmp_path, site):
    site.put(
        "a.test", **{"": page(f"http://b.test:{site.port}/x", f"http://www.a.test:{site.port}/w", "http://c.test/")}
    )
    site.put("b.test", **{"x": b"x"})
    site.put("www.a.test", **{"w": b"w", "robots.txt": b"User-agent: *\nDisallow: /no"})
    files, _ = crawled(tmp_path, config(site, "a.test", "b.test", sitemaps=False))
    assert sorted(paths(files)) == sorted(["/robots.txt"] * 3 + ["/", "/", "/x", "/w"])
    assert {host for host, _, _ in site.asked} == {"a.test", "b.test", "www.a.test"}


def test_redirects_are_captures_and_their_targets_are_followed_where_allowed(tmp_path, site):
    site.put(
        "a.test",
        **{
            "": page("/r1", "/r2", "/r3", "/r4", "/r5"),
            "r1": (301, {"Location": "/new"}, b""),
            "r2": (302, {"Location": "/secret/x"}, b""),
            "r3": (307, {"Location": "http://elsewhere.test/"}, b""),
            "r4": (308, {"Location": "http://[broken"}, b""),
            "r5": (301, {}, b""),
            "new": b"new",
            "robots.txt": b"User-agent: *\nDisallow: /secret\n",
        },
    )
    files, counts = crawled(tmp_path, config(site, sitemaps=False))
    assert paths(files) == ["/robots.txt", "/", "/r1", "/r2", "/r3", "/r4", "/r5", "/new"]
    assert (counts["redirected elsewhere"], counts["refused by robots.txt"]) == (1, 1)


def test_redirects_without_end(tmp_path, site):
    site.before = lambda host, path: site.pages.setdefault(
        (host, path), (302, {"Location": f"/{path.count('x')}{'x' * (path.count('x') + 1)}"}, b"")
    )
    site.put("a.test", **{"robots.txt": b""})
    files, counts = crawled(tmp_path, config(site, sitemaps=False))
    assert counts["recorded"] == 6  # the seed and five redirects
    site.pages.clear()
    site.before = lambda host, path: None
    site.put("a.test", **{"robots.txt": (301, {"Location": "/robots.txt"}, b""), "": b"x"})
    files, _ = crawled(tmp_path, config(site, sitemaps=False))
    assert paths(files) == ["/robots.txt", "/"]


def test_files_are_cut_by_size(tmp_path, site):
    site.put("a.test", **{"": page(*(f"/{n}" for n in range(30)))})
    site.put("a.test", **{str(n): os.urandom(3000) for n in range(30)})
    files, counts = crawled(tmp_path, config(site, file_bytes=10_000))
    assert [path.name for path in files] == [f"crawl-{n:05}.warc.gz" for n in range(len(files))]
    assert len(files) >= 8
    assert all(path.stat().st_size < 16_000 for path in files)
    assert len(paths(files)) == counts["recorded"] + 1 == 32
    assert all(next(warc.read(str(path))).type == "warcinfo" for path in files)


RUN = """
import sys
from dataeng.acquire import network
network.lookup = lambda host, port: ["127.0.0.1"]
from dataeng.acquire import crawl, walk
walk._COMMIT_SECONDS = 0.05
sys.argv[1:] = [sys.argv[1]]
crawl.main()
"""


def start(tmp_path, site, name, **more):
    """A crawl in a process of its own, and its recipe."""
    table = config(site, "a.test", "b.test", **more).model_dump(exclude_none=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / f"{name}.toml").write_text(f'root = "{tmp_path}/{name}"\n[crawl]\n' + "\n".join(lines))
    return subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / f"{name}.toml")])


def captures(root) -> list[str]:
    folder = stage.folder_of(str(root), "crawl")
    files = stage.table_paths(folder, stage.need_manifest(str(root), "crawl", "x"), "captures")
    return [item.url for path in files for item in warc.read(path) if isinstance(item, Capture)]


def test_a_crawl_killed_again_and_again_ends_with_every_page_once(tmp_path, site):
    """Killed three times without warning; the result holds each page once, in as many files as are needed."""
    expected = set()
    for host in ("a.test", "b.test"):
        pages = {"": page(*(f"/{n}" for n in range(12)))}
        for n in range(12):
            pages[str(n)] = page(*(f"/{n}-{m}" for m in range(12)))
            pages |= {f"{n}-{m}": os.urandom(300) for m in range(12)}
        site.put(host, **pages | {"robots.txt": b""})
        expected |= {f"http://{host}:{site.port}/{path}" for path in [*pages, "robots.txt"]}
    for number in range(3):
        seen = len(site.asked)
        site.before = lambda host, path: time.sleep(0.005)
        process = start(tmp_path, site, "killed", file_bytes=20_000, sitemaps=False)
        while len(site.asked) < seen + 45 + 10 * number:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process = start(tmp_path, site, "killed", file_bytes=20_000, sitemaps=False)
    assert process.wait() == 0
    found = Counter(captures(tmp_path / "killed"))
    assert set(found) == expected
    assert set(found.values()) == {1}
    assert stage.verify(str(tmp_path / "killed"), "crawl") == []
    assert not (tmp_path / "killed/crawl/partial").exists()
    counts = stage.need_manifest(str(tmp_path / "killed"), "crawl", "x").counts
    assert counts == {"pages": len(expected) - 2}
    assert len(site.asked) < 2 * len(expected)  # what was done was not done again


def test_a_second_visit_records_only_what_changed(tmp_path, site):
    def conditional(handler):
        if handler.headers.get("If-None-Match") == '"v1"':
            return 304, {"ETag": '"v1"'}, b""
        return 200, {"Content-Type": "text/html", "ETag": '"v1"'}, page("/below")

    site.put("a.test", **{"": page("/same", "/new", "/etag"), "same": b"same", "new": b"old", "etag": conditional})
    site.put("a.test", **{"below": b"below", "robots.txt": b"User-agent: *"})
    table = config(site, sitemaps=False).model_dump()
    first = crawl.step(Recipe("r", str(tmp_path / "run"), 0, {"crawl": table}))
    site.put("a.test", new=b"new")
    site.asked.clear()
    again = crawl.step(Recipe("r", str(tmp_path / "run"), 0, {"crawl": table | {"visit": 2}}))
    assert (first.counts, again.counts) == ({"pages": 5}, {"pages": 5})
    assert again.details["unchanged"] == 4
    files = [storage.join(str(tmp_path / "run/crawl"), file.path) for file in again.tables["captures"].files]
    assert [path.rpartition("/")[2] for path in files] == ["crawl-00000.warc.gz", "crawl-2-00000.warc.gz"]
    assert paths(files[1:]) == ["/new"]
    revisits = {path: (headers, status, body) for _, path, headers, status, body in records(files[1:], ("revisit",))}
    assert set(revisits) == {"/robots.txt", "/", "/etag", "/same", "/below"}
    ids = {path: headers.get_header("WARC-Record-ID") for _, path, headers, _, _ in records(files[:1])}
    for path, (headers, _, body) in revisits.items():
        profile = "server-not-modified" if path == "/etag" else "identical-payload-digest"
        assert headers.get_header("WARC-Profile") == f"http://netpreserve.org/warc/1.1/revisit/{profile}"
        assert headers.get_header("WARC-Refers-To") == ids[path]
        assert headers.get_header("WARC-Refers-To-Target-URI") == headers.get_header("WARC-Target-URI")
        assert headers.get_header("WARC-Refers-To-Date")
        assert body == b""
    assert revisits["/etag"][1] == "304"
    assert "/below" in site.paths()  # known only by the links of a page that was not sent again
    assert stage.verify(str(tmp_path / "run"), "crawl") == []
    asked = len(site.asked)
    crawl.step(Recipe("r", str(tmp_path / "run"), 0, {"crawl": table | {"visit": 2}}))
    assert len(site.asked) == asked


def test_a_page_that_changes_twice_is_compared_with_its_last_state(tmp_path, site):
    table = config(site, sitemaps=False, depth=0).model_dump()
    for visit, text in enumerate((b"one", b"two", b"two", b"one"), 1):
        site.put("a.test", **{"": text})
        last = crawl.step(Recipe("r", str(tmp_path / "run"), 0, {"crawl": table | {"visit": visit}}))
    files = [storage.join(str(tmp_path / "run/crawl"), file.path) for file in last.tables["captures"].files]
    assert [
        [kind for kind, path, _, _, _ in records([path], ("response", "revisit")) if path == "/"] for path in files
    ] == [
        ["response"],
        ["response"],
        ["revisit"],
        ["response"],
    ]


# Addresses


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        *[(address, False) for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.5.5", "169.254.169.254")],
        *[(address, False) for address in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "198.18.0.1")],
        *[(address, False) for address in ("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1")],
        *[(address, False) for address in ("2002:7f00:1::", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1")],
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_a_name_server_that_changes_its_mind_gains_nothing(tmp_path, site, monkeypatch):
    """The first look-up says a public address, later ones loopback: nothing but refusals, and no connection."""
    answers = defaultdict(list)

    def lookup(host, port):
        answers[host].append(1)
        return ["93.184.216.34"] if len(answers[host]) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(network, "lookup", lookup)
    with pytest.raises(UserError, match="nothing could be fetched"):
        crawled(tmp_path, config(site, allow_private=False, retries=0))
    assert site.asked == []


def test_one_private_address_among_public_ones_is_enough(monkeypatch):
    monkeypatch.setattr(network, "lookup", lambda host, port: ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(Private):
        network.checked("x.test", 80, False)


def test_a_redirect_into_the_private_network_is_not_followed(tmp_path, site, monkeypatch):
    site.put("a.test", **{"": (302, {"Location": f"http://www.a.test:{site.port}/inside"}, b"")})
    site.put("www.a.test", inside=b"secret")
    places = {"a.test": [("127.0.0.1", site.port)]}  # as if it were a public address
    monkeypatch.setattr(
        fetch,
        "places_of",
        lambda url, limits, real=fetch.places_of: places.get(url.split("/")[2].partition(":")[0]) or real(url, limits),
    )
    monkeypatch.setattr("dataeng.acquire.walk.places_of", fetch.places_of)
    files, counts = crawled(tmp_path, config(site, allow_private=False, sitemaps=False))
    assert paths(files) == ["/robots.txt", "/"]
    assert counts["refused: private network"] >= 1
    assert site.paths("www.a.test") == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "localhost", "127.1", "0"])
def test_other_spellings_of_loopback(host):
    with pytest.raises((Private, Unreachable)):
        network.checked(host, 80, False)


# Hostile sites


def limits(**more) -> Limits:
    values = {"user_agent": AGENT, "response_bytes": 100_000, "timeout_seconds": 1.0, "allow_private": True}
    return Limits(**values | {"connect_to": {}} | more)


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


@pytest.mark.parametrize(
    ("first", "drop", "ends"),
    [
        (b"", b"H", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", "time"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", "time"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", "time"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b"x", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n", "length"),
    ],
)
def test_responses_without_end_do_end(first, drop, ends):
    listener, url = dripping(first, drop)
    started = time.monotonic()
    try:
        found = fetch.fetch(url, limits()).truncated
    except Unreachable:
        found = "unreachable"
    listener.close()
    assert found == ends
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("agents", ["other{}", "*", "millrace{}"])
def test_a_huge_robots_txt_costs_no_time(agents):
    lines = [f"User-agent: {agents.format(n)}" for n in range(20_000)]
    text = "\n".join(lines) + "\n" + "\n".join(f"Disallow: /{n}*a*b*c*d$" for n in range(20_000))
    started = time.process_time()
    rules = Rules(text, AGENT)
    for n in range(50):
        rules.allow(f"http://a.test/{'ab' * 900}{n}")
    assert time.process_time() - started < 10  # a product of the two would take minutes


def test_a_robots_txt_of_gigabytes_is_read_to_its_bound(tmp_path, site):
    site.put(
        "a.test",
        **{"robots.txt": b"User-agent: *\nDisallow: /no\n" + b"#" * (9 << 20), "": page("/no", "/yes"), "yes": b"y"},
    )
    files, _ = crawled(tmp_path, config(site, sitemaps=False))
    assert paths(files) == ["/robots.txt", "/", "/yes"]
    bomb = gzip.compress(b"User-agent: *\nAllow: /\n" + b"\n" * (64 << 20))
    site.put("a.test", **{"robots.txt": (200, {"Content-Encoding": "gzip"}, bomb)})
    with pytest.raises(UserError, match="nothing could be fetched"):
        crawled(tmp_path, config(site, sitemaps=False))


def test_what_robots_txt_says():
    rules = Rules("User-agent: other\nDisallow: /\n\nUser-agent: Millrace\nDisallow: /a\nRequest-rate: 1/4\n", AGENT)
    assert (rules.allow("http://x/a/b"), rules.allow("http://x/b"), rules.delay) == (False, True, 4.0)
    assert not Rules("User-agent: *\nDisallow: /", AGENT).allow("http://x/")
    assert Rules("", AGENT).allow("http://x/")
    assert not Rules(None, AGENT).allow("http://x/")
    assert Rules("User-agent: *\nCrawl-delay: -5\nCrawl-delay: nonsense", AGENT).delay == 0.0


def exchange(body: bytes, kind="text/xml", coding="") -> Exchange:
    headers = [("Content-Type", kind), *([("Content-Encoding", coding)] if coding else [])]
    return Exchange("http://a.test/s.xml", "2030-01-01T00:00:00Z", [], "/", 200, "OK", headers, body)


LAUGHS = b'<!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(10)
)
HOSTILE = {
    "gzip bomb": gzip.compress(b"<urlset>" + b" " * (200 << 20)),
    "entity bomb": LAUGHS + b"]><urlset><url><loc>http://a.test/&k;</loc></url></urlset>",
    "outer entity": b'<!DOCTYPE u [<!ENTITY x SYSTEM "file:///etc/passwd">]><urlset><url><loc>http://a.test/&x;</loc></url>',
    "deep": b"<url>" * 100_000,
    "broken": b"<urlset><url><loc>http://a.test/1</loc></url><url><",
    "many": b"<urlset>" + b"<url><loc>http://a.test/%d</loc></url>" * 1,
    "long": b"<urlset><url><loc>http://a.test/" + b"x" * 1_000_000 + b"</loc></url></urlset>",
    "none": b"\x00\xff" * 1000,
    "empty": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_sitemaps(name):
    started = time.process_time()
    pages, more = sitemap(exchange(HOSTILE[name]))
    assert time.process_time() - started < 10
    assert more == []
    assert len(pages) <= 1
    assert not any("root" in url or "haha" in url for url in pages)


def test_a_sitemap_lists_no_more_than_the_protocol_allows():
    body = b"<urlset>" + b"".join(b"<url><loc>http://a.test/%d</loc></url>" % n for n in range(60_000))
    assert len(sitemap(exchange(body))[0]) == 50_000


def test_a_tree_of_sitemap_indexes_is_cut_off(tmp_path, site):
    def index(handler):
        name = handler.path.strip("/")
        urls = "".join(f"<sitemap><loc>http://a.test:{site.port}/{name}{n}</loc></sitemap>" for n in range(30))
        return 200, {}, f"<sitemapindex>{urls}</sitemapindex>".encode()

    site.before = lambda host, path: site.pages.setdefault((host, path), index)
    site.put("a.test", **{"robots.txt": b"", "": b"x"})
    crawled(tmp_path, config(site))
    assert 30 < len(site.asked) <= 53


def test_links_of_hostile_pages():
    for body in (
        b"<a href='/x'>" * 50_000,
        b"<div>" * 100_000 + b"<a href='/deep'>",
        b"\x00<a href=/n>\xff",
        b"<a href='http://[/'>",
    ):
        assert len(links(exchange(body, "text/html"), 8 << 20)) <= 10_000
    assert links(exchange(gzip.compress(b"x" * (9 << 20)), "text/html", "gzip"), 8 << 20) == []
    assert target("http://a.test/", "x" * 3000) is None
    assert target("http://a.test/b/", "../ä b?q=\N{SNOWMAN}") == "http://a.test/%C3%A4%20b?q=%E2%98%83"
    assert target("http://a.test/", "http://b\u00fccher.test/") == "http://xn--bcher-kva.test/"
    assert target("http://a.test/", "http://u:p@b.test/") == "http://b.test/"
    assert target("http://a.test/", "javascript:x") is None


def test_headers_that_are_no_text(tmp_path, site):
    listener, url = dripping(
        b"HTTP/1.1 200 \xff\xfe\r\nX: \xff\x80\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\n", b"x"
    )
    values = {"seeds": [url], "allow_private": True, "delay_seconds": 0, "sitemaps": False, "retries": 0}
    files, counts = crawled(tmp_path, Config(**values))
    listener.close()
    assert counts["recorded"] == 1
    assert paths(files) == ["/robots.txt", "/"]
