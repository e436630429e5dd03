"""The crawler before sites and name servers that mean harm."""

from __future__ import annotations

import gzip
import ssl
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from site_server import AGENT, config, crawled, dripping, page, paths, records

from dataeng.acquire import fetch, network, robots
from dataeng.acquire.crawl import Config
from dataeng.acquire.fetch import Exchange, Limits
from dataeng.acquire.links import links, sitemap, target
from dataeng.acquire.network import Private, Unreachable, is_public
from dataeng.acquire.robots import Rules
from dataeng.cli import UserError


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


def limits(**more) -> Limits:
    values = {"user_agent": AGENT, "response_bytes": 100_000, "timeout_seconds": 1.0, "allow_private": True}
    return Limits(**values | {"connect_to": {}} | more)


@pytest.mark.parametrize(
    ("first", "drop", "ends"),
    [
        (b"", b"H", "unreachable"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", "unreachable"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", "unreachable"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", "time"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", b"x", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "time"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n", "length"),
    ],
)
def test_responses_without_end_do_end(first, drop, ends):
    listener, url = dripping(first, drop)
    try:
        found = fetch.fetch(url, limits()).truncated
    except Unreachable:
        found = "unreachable"
    listener.close()
    assert found == ends


@pytest.mark.parametrize("agents", ["other{}", "*", "millrace{}"])
def test_a_huge_robots_txt_costs_no_time(agents):
    lines = [f"User-agent: {agents.format(n)}" for n in range(20_000)]
    text = "\n".join(lines) + "\n" + "\n".join(f"Disallow: /{n}*a*b*c*d$" for n in range(20_000))
    names = {line for line in robots._relevant(text, AGENT).splitlines() if line.startswith("User-agent")}
    assert len(names) <= 2  # names by rules, 4 * 10**8 of them, would be kept otherwise
    rules = Rules(text, AGENT)
    allowed = [rules.allow(f"http://a.test/{'ab' * 900}{n}") for n in range(50)]
    assert allowed == [True] * 50


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
    pages, more = sitemap(exchange(HOSTILE[name]))
    assert more == []
    assert len(pages) <= 1
    assert not any("root" in url or "haha" in url for url in pages)


def test_a_sitemap_with_much_around_its_addresses():
    url = b"<url><lastmod/><!-- c --><loc>http://a.test/%d</loc><x:image><x:loc>http://a.test/i</x:loc></x:image></url>"
    body = b'<?xml version="1.0"?><?style x?><!-- c --><urlset xmlns:x="http://x/">' + url % 1 + b"<a/>" + url % 2
    assert sitemap(exchange(body + b"</urlset><!-- c -->"))[0] == ["http://a.test/1", "http://a.test/2"]


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


def certificate(folder, host: str):
    """A self-signed certificate for a host, and its key, as files."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    day = timedelta(days=1)
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "c.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "k.pem").write_bytes(key.private_bytes(*form))
    return folder / "c.pem", folder / "k.pem"


def test_https_is_bound_to_the_name_though_an_address_is_connected_to(tmp_path, site, monkeypatch):
    certificate_file, key_file = certificate(tmp_path, "a.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True, do_handshake_on_connect=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_file))
    site.put("a.test", **{"": b"by https"})
    site.put("b.test", **{"": b"not its name"})
    seeds = [f"https://{host}:{site.port}/" for host in ("a.test", "b.test")]
    files, _ = crawled(tmp_path, config(site, sitemaps=False).model_copy(update={"seeds": seeds}))
    assert [payload for _, path, _, _, payload in records(files) if path == "/"] == [b"by https"]
    assert "b.test" not in {host for host, _, _ in site.asked}


def test_a_handshake_without_end_does_end():
    listener, url = dripping(b"\x16\x03\x03\x40\x00", b"\x02")
    with pytest.raises(Unreachable):
        fetch.fetch(url.replace("http:", "https:"), limits())
    listener.close()
