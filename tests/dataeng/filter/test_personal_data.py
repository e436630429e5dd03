"""What is masked, what is not, and that masking twice changes nothing."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataeng.document import Document
from dataeng.filter.personal_data import Config, mask, mask_url, transform

CONFIG = Config()

MASKED = [
    ("Write to jane.roe0@mail-a0.example.com or call.", "Write to <EMAIL> or call."),
    ("<mailto:O.Nym+list@sub.domain.co.uk>", "<mailto:<EMAIL>>"),
    ("jörg@müller.de; 用户@例子.中国.", "<EMAIL>; <EMAIL>."),
    ("jane [at] roe [dot] org", "<EMAIL>"),
    ("jane(at)roe.org", "<EMAIL>"),
    ("the server at 11.0.0.1 answers", "the server at <IP> answers"),
    ("http://93.184.216.34/x", "http://<IP>/x"),
    ("from 93.184.216.34-93.184.216.40.", "from <IP>-<IP>."),
    ("ping 2a00:1450:4001:82a::200e, up", "ping <IP>, up"),
    ("nameserver 8.8.4.4", "nameserver <IP>"),
    ("call +1 212 555 0100; the", "call <PHONE>; the"),
    ("+49 (0)30 901820", "<PHONE>"),
    ("+33.1.42.68.53.00", "<PHONE>"),
    ("(+44) 20 7946 0958", "<PHONE>"),
    ("tel:+12125550100", "tel:<PHONE>"),
    ("(212) 555-0100 or 212-555-0100 or 1-212-555-0100", "<PHONE> or <PHONE> or <PHONE>"),
    ("Tel.: 030 901820", "Tel.: <PHONE>"),
    ("Fax 0711/123456", "Fax <PHONE>"),
    ("電話：03-1234-5678", "電話：<PHONE>"),
    ("+1 212 555 0100 2021 10", "<PHONE> 10"),
]

KEPT = [
    "user@localhost",
    "name@example.com",
    "@decorator and a @ b",
    "version 4.19.0.1 and v1.2.3.4",
    "Python 3.11.2.10",
    "linux-image-4.19.12.1-amd64",
    "foo_11.22.33.44.tar.gz",
    "6.3.1.2. Partitioning",
    "1.2.3.4.5",
    "11.22.33.444",
    "127.0.0.1, 10.0.0.1, 192.168.1.1, 255.255.255.0, 224.0.0.251, 0.0.0.0",
    "12:34:56 and 00:1a:2b:3c:4d:5e and std::vector::at and fe80::1",
    "2026-11-21 and 978-0-13-110362-7 and 1,234,567,890",
    "d41d8cd98f00b204e9800998ecf8427e",
    "256 512 1024 and 800 600 1024",
    "@@ -1,7 +12,9 @@ and C++ 20 21 22 23 and UTC+1 2021 10 11",
    "phone 12",
    "<EMAIL> <IP> <PHONE>",
]


@pytest.mark.parametrize(("text", "expected"), MASKED)
def test_masked(text, expected):
    assert mask(text, CONFIG)[0] == expected


@pytest.mark.parametrize("text", KEPT)
def test_not_personal(text):
    assert mask(text, CONFIG)[0] == text


def test_counts_and_every_field():
    document = Document(
        "id",
        "a@b.org and c@d.org, +1 212 555 0100",
        url="http://u:p@93.184.216.34/~a@b.org?ip=93.184.216.34",
        metadata={"author": "Ann <ann@b.org>"},
    )
    masked = transform(document, CONFIG)
    assert masked.text == "<EMAIL> and <EMAIL>, <PHONE>"
    others = dict.fromkeys(("masked.ip", "masked.card", "masked.iban", "masked.api_key", "masked.private_key"), 0)
    assert masked.scores == {"masked.email": 2, "masked.phone": 1} | others
    assert masked.url == "http://93.184.216.34/~<EMAIL>?ip=<IP>"
    assert masked.metadata == {"author": "Ann <<EMAIL>>"}
    assert masked.id == "id"


def test_kinds_can_be_chosen():
    assert mask("a@b.org 11.22.33.44", Config(kinds=["ip"]))[0] == "a@b.org <IP>"


@settings(deadline=None)
@given(st.text(alphabet=" .@+-()0123456789abcé:/<>", max_size=200))
def test_masking_twice_changes_nothing(text):
    once = mask(text, CONFIG)[0]
    assert mask(once, CONFIG)[0] == once
    assert mask_url(mask_url(text, CONFIG), CONFIG) == mask_url(text, CONFIG)


HOSTILE = ["+1" * 20_000, "1-" * 20_000, "a." * 20_000, "a@" * 20_000, "(" * 40_000, "1.2." * 9_999, "tel" * 9_999]
HOSTILE += ["a" * 40_000 + "@", "@" + "a-" * 20_000, "2001:" * 8_000, "1 " * 500_000 + "1a"]


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:4] for text in HOSTILE])
def test_hostile_texts_end(text):
    assert mask(text, CONFIG)[0]  # a pattern that backtracks would not come back


def test_what_the_labelled_crawl_injects(data_dir):
    with gzip.open(data_dir / "crawl-a" / "labels.jsonl.gz", "rt") as lines:
        labels = [label for line in lines if (label := json.loads(line))["kind"] == "pii"]
    assert len(labels) == 100
    for label in labels:
        text = f"Contact {label['email']} or call {label['phone']}; the server at {label['ip']} answers."
        assert mask(text, CONFIG)[0] == "Contact <EMAIL> or call <PHONE>; the server at <IP> answers."
