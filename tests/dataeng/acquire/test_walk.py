"""The crawler among several hosts, over a kill, and on a second visit."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from site_server import config, crawled, page, paths, records

from dataeng import stage, storage, warc
from dataeng.acquire import crawl, walk
from dataeng.acquire.crawl import run_crawl
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.warc import Capture


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


def test_the_usual_sitemap_is_left_alone_where_robots_txt_forbids_it(tmp_path, site):
    site.put("a.test", **{"": b"x", "sitemap.xml": b"<urlset/>", "robots.txt": b"User-agent: *\nDisallow: /s"})
    files, _ = crawled(tmp_path, config(site))
    assert paths(files) == ["/robots.txt", "/"]
    assert "/sitemap.xml" not in site.paths()


def test_a_start_address_that_is_a_sitemap(tmp_path, site):
    url = f"http://a.test:{site.port}"
    site.put("a.test", **{"sitemap.xml": f"<urlset><url><loc>{url}/y</loc></url></urlset>".encode(), "y": b"y"})
    files, _ = crawled(tmp_path, config(site, seeds=[f"{url}/sitemap.xml"]))
    assert "/y" in paths(files)


def test_a_robots_txt_that_leads_to_a_page_takes_nothing_from_that_page(tmp_path, site):
    pages = {"": page("/1"), **{str(n): page(f"/{n + 1}") for n in range(1, 6)}}
    site.put("a.test", **pages | {"robots.txt": (302, {"Location": "/"}, b"")})
    files, counts = crawled(tmp_path, config(site, sitemaps=False, depth=2))
    assert set(paths(files)) == {"/robots.txt", "/", "/1", "/2"}
    assert counts["fetched"] == 3


def test_answers_that_wait_for_two_that_are_asked_again(tmp_path, site, monkeypatch):
    monkeypatch.setattr(walk, "_HELD_BYTES", 10)
    failed = set()

    def fails_once(handler):
        first = handler.path not in failed
        failed.add(handler.path)
        time.sleep(0.1 if first and handler.path == "/2" else 0)
        return (503, {}, b"") if first else (200, {}, b"there")

    site.put("a.test", **{"": page("/1", "/2", "/3", "/4"), "1": fails_once, "2": fails_once})
    site.put("a.test", **{"3": b"three" * 10, "4": b"four" * 10})
    files, _ = crawled(tmp_path, config(site, sitemaps=False, parallel=3))
    assert paths(files) == ["/robots.txt", "/", "/1", "/2", "/3", "/4"]


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
            "": page("/r1", "/r2", "/r3", "/r4", "/r5", "/r6"),
            "r1": (301, {"Location": "/new"}, b""),
            "r2": (302, {"Location": "/secret/x"}, b""),
            "r3": (307, {"Location": "http://elsewhere.test/"}, b""),
            "r4": (308, {"Location": "http://[broken"}, b""),
            "r5": (301, {}, b""),
            "r6": (301, {"Location": "/\u00e4".encode().decode("latin-1")}, b""),
            "%C3%A4": b"umlaut",
            "new": b"new",
            "robots.txt": b"User-agent: *\nDisallow: /secret\n",
        },
    )
    files, counts = crawled(tmp_path, config(site, sitemaps=False))
    assert paths(files) == ["/robots.txt", "/", "/r1", "/r2", "/r3", "/r4", "/r5", "/r6", "/%C3%A4", "/new"]
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


def test_a_crawl_interrupted_between_a_record_and_its_links_holds_no_page_twice(tmp_path, site, monkeypatch):
    site.put("a.test", **{"": page("/1", "/2"), "1": b"one", "2": b"two"})
    read, interrupted = walk.links, []

    def interrupt(exchange, most):
        if exchange.url.endswith("/1") and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return read(exchange, most)

    monkeypatch.setattr(walk, "links", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_crawl(config(site, sitemaps=False), tmp_path)
    files, counts = run_crawl(config(site, sitemaps=False), tmp_path)
    assert paths(files) == ["/robots.txt", "/", "/1", "/2"]
    assert counts["fetched"] == 3


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
    other = crawl.step(Recipe("r", str(tmp_path / "run"), 0, {"crawl": table | {"visit": 2, "depth": 0}}))
    assert other.counts == {"pages": 1}
    kept, own = (file.path.rpartition("/")[2] for file in other.tables["captures"].files)
    assert (kept, own) == ("crawl-00000.warc.gz", "crawl-2-00000.warc.gz")  # the first visit's, and the second's anew
    assert stage.verify(str(tmp_path / "run"), "crawl") == []


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
