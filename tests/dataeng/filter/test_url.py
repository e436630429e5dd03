"""Block lists: what an entry blocks and what it does not, in any notation of an address."""

from __future__ import annotations

import gzip

import pytest

from dataeng import recipe
from dataeng.cli import UserError
from dataeng.document import Document
from dataeng.filter import Config as Filter
from dataeng.filter import apply
from dataeng.filter.url import Config, load, reasons, verdict

LIST = """# comment
example.com
*.wild.org   # below and itself
0.0.0.0 hosts-file.net
Bücher.DE
93.184.216.34
pages.org/bad/
www.pages.org/query?id=1
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "domains").write_text(LIST, encoding="utf-8")
    return Config(lists=[str(tmp_path / "domains")], allow=["good.example.com"])


BLOCKED = [
    ("http://example.com/", "domain", "example.com"),
    ("https://user:pass@A.Example.COM.:8443/x?y#z", "domain", "example.com"),
    ("example.com/x", "domain", "example.com"),
    ("//example.com", "domain", "example.com"),
    ("http://ex%61mple.com/", "domain", "example.com"),
    ("http://a.wild.org", "domain", "wild.org"),
    ("http://wild.org", "domain", "wild.org"),
    ("http://hosts-file.net/", "domain", "hosts-file.net"),
    ("http://www.bücher.de/", "domain", "xn--bcher-kva.de"),
    ("http://XN--bcher-KVA.de/", "domain", "xn--bcher-kva.de"),
    ("http://93.184.216.34:80/", "domain", "93.184.216.34"),
    ("http://pages.org/bad", "page", "pages.org/bad"),
    ("http://pages.org/bad/more.html?x=1", "page", "pages.org/bad"),
    ("http://www.pages.org/bad/", "page", "pages.org/bad"),
    ("http://www.pages.org/query?id=1", "page", "www.pages.org/query?id=1"),
]
PASSED = [
    "http://badexample.com/",
    "http://example.com.au/",
    "http://com/",
    "http://example.org/example.com",
    "http://example.org/?u=http://example.com/",
    "http://good.example.com/",
    "http://below.good.example.com/",
    "http://1.93.184.216.34/",
    "http://pages.org/badly",
    "http://pages.org/",
    "http://www.pages.org/query?id=2",
    "http://[::1/",
    "mailto:",
    "",
    "http://" + "a." * 500_000 + "com/",
]


@pytest.mark.parametrize(("url", "rule", "match"), BLOCKED)
def test_blocked(config, url, rule, match):
    assert reasons(url, config) == {rule: match}
    assert verdict(url, config)[:4] == (False, f"url.{rule}", 1.0, 0)


@pytest.mark.parametrize("url", PASSED, ids=[url[:40] for url in PASSED])
def test_passed(config, url):
    assert verdict(url, config).keep


def test_without_an_address_nothing_is_scored(config):
    assert verdict(None, config).keep
    assert apply(Document("x", "text"), Filter(rules=["url"]))["scores"] == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[2001:db8::1]", "3232235777", "0x7f.1", "010.0.0.1"])
def test_ip_hosts_go_where_they_are_not_wanted(host):
    assert verdict(f"http://{host}:80/x", Config()).keep
    assert verdict(f"http://{host}:80/x", Config(ip_hosts=False)).rule == "url.ip_host"


def test_names_are_not_ip_addresses():
    for host in ("1.2.3.4.com", "0xff.org", "1and1.de", "a1.2.3.4"):
        assert verdict(f"http://{host}/", Config(ip_hosts=False)).keep, host


def test_words_stand_between_signs_and_substrings_anywhere():
    config = Config(words=["Casino"], substrings=["viagra"])
    assert reasons("http://a.com/best-CASINO_games", config) == {"word": "Casino"}
    assert reasons("http://a.com/best%2Dcasino", config) == {"word": "Casino"}
    assert reasons("http://buyviagranow.com/", config) == {"word": "viagra"}
    assert verdict("http://casinos.com/", config).keep
    assert verdict("http://casino.com/", Config(words=["casino"], allow=["casino.com"])).keep


def test_a_folder_as_ut1_has_them(tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "domains").write_text("one.com\n")
    (tmp_path / "adult" / "urls").write_text("two.com/x\n")
    (tmp_path / "adult" / "usage").write_text("black\n")
    (tmp_path / "more.txt.gz").write_bytes(gzip.compress(b"three.com\n"))
    config = Config(lists=[str(tmp_path)])
    assert [path.rpartition("/")[2] for path in config.files()] == ["domains", "urls", "more.txt.gz"]
    assert len(load(tuple(config.lists))) == 3
    for url in ("http://one.com", "http://two.com/x", "http://three.com"):
        assert not verdict(url, config).keep
    assert verdict("http://black", config).keep


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n"])
def test_an_empty_list_is_refused(tmp_path, text):
    path = tmp_path / "domains"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"{path}: filter.url.lists names it, but it has no entry"):
        Config(lists=[str(path)]).files()


def test_a_list_that_is_not_there_or_no_gzip_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Config(lists=[str(tmp_path / "absent")]).files()
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"one.com\n" * 99)[:20])
    (tmp_path / "marred.txt.gz").write_bytes(gzip.compress(b"")[:10] + b"\xff" * 20)
    with pytest.raises(UserError, match="cannot be read as gzip"):
        Config(lists=[str(tmp_path / "marred.txt.gz")]).files()
    with pytest.raises(UserError, match="cannot be read as gzip"):
        Config(lists=[str(tmp_path)]).files()


def test_a_recipe_with_an_empty_list_is_refused_before_an_engine_starts(tmp_path):
    (tmp_path / "domains").write_text("# empty\n")
    file = tmp_path / "r.toml"
    file.write_text(f'root = "{tmp_path}"\n[filter]\nrules = ["url"]\n[filter.url]\nlists = ["{tmp_path}/domains"]\n')
    with pytest.raises(UserError, match="has no entry"):
        recipe.load([str(file)]).check_files()


def test_a_dropped_row_says_which_entry_matched(config):
    row = apply(Document("x", "text", url="http://a.example.com/", metadata={"title": "T"}),
                Filter(rules=["url"], url=config.model_dump()))  # fmt: skip
    assert (row["table"], row["rule"], row["score"], row["threshold"]) == ("dropped", "url.domain", 1, 0)
    assert row["metadata"] == {"title": "T", "url_blocked": "domain example.com"}
