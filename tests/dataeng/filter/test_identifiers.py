"""Cards, IBANs, keys and national telephone numbers: a table for each, of what is masked and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng.filter.identifiers import is_card, luhn
from dataeng.filter.personal_data import Config, mask

# The networks' test numbers. Keys are put together here, so that no scanner takes this file for a leak.
CARDS = [
    ("4111 1111 1111 1111", "<CARD>"),
    ("4012888888881881", "<CARD>"),
    ("pay by 5555-5555-5555-4444.", "pay by <CARD>."),
    ("2223003122003222", "<CARD>"),
    ("378282246310005", "<CARD>"),
    ("3782 822463 10005", "<CARD>"),
    ("30569309025904", "<CARD>"),
    ("6011 1111 1111 1117", "<CARD>"),
    ("3530111333300000", "<CARD>"),
    ("4111 1111 1111 1112", None),  # wrong check digit
    ("9111 1111 1111 1119", None),  # no issuer
    ("4111 11111111 1111", None),  # no card is grouped so
    ("0000 0000 0000 0000", None),
    ("1.4111111111111111 and 4111111111111111.5", None),  # decimals
    ("a4111111111111111f", None),  # part of a hash
    ("978-0-13-110362-7, 9780131103627, 20210101123000", None),
    ("d41d8cd98f00b204e9800998ecf8427e", None),
]
IBANS = [
    ("GB82 WEST 1234 5698 7654 32", "<IBAN>"),
    ("IBAN: DE89370400440532013000.", "IBAN: <IBAN>."),
    ("FR14 2004 1010 0505 0001 3M02 606 is ours", "<IBAN> is ours"),
    ("NO93 8601 1117 947", "<IBAN>"),
    ("MT84 MALT 0110 0001 2345 MTLC AST0 01S", "<IBAN>"),
    ("DE89 3704 0044 0532 0130 00 BIC", "<IBAN> BIC"),
    ("GB82 WEST 1234 5698 7654 33", None),  # wrong check digits
    ("DE89 3704 0044 0532 0130", None),  # too short
    ("DE893704004405320130001", None),  # too long
    ("XX82 WEST 1234 5698 7654 32", None),  # no such country
    ("ISO88591 UTF8 BASE64 SHA256 MD5", None),
]
LETTERS = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
KEYS = [
    ("id AKIA" + "IOSFODNN7EXAMPLE" + " here", "id <API_KEY> here"),
    ("ghp_" + LETTERS[:36], "<API_KEY>"),
    ("github_pat_" + LETTERS, "<API_KEY>"),
    ("glpat-" + LETTERS[:20], "<API_KEY>"),
    ("xoxb-" + "1234567890-" + LETTERS[:24], "<API_KEY>"),
    ("sk_live_" + LETTERS[:24], "<API_KEY>"),
    ("OPENAI_API_KEY=sk-" + LETTERS, "OPENAI_API_KEY=<API_KEY>"),
    ("AIza" + LETTERS[:35], "<API_KEY>"),
    ("npm_" + LETTERS[:36], "<API_KEY>"),
    ("Bearer eyJ" + LETTERS + ".eyJ" + LETTERS + "." + LETTERS, "Bearer <API_KEY>"),
    ("AKIASHORT and XAKIAIOSFODNN7EXAMPLE", None),
    ("ghp_short", None),
    ("sk-container-with-a-very-long-class-name", None),
    ("risk-" + "free-assessment-methodology", None),
    ("eyJhbGciOiJIUzI1NiJ9", None),  # a header alone
    ("d41d8cd98f00b204e9800998ecf8427e", None),
]
BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDIq8kQ5nT2fLmV"] * 3)
PEM = "-----BEGIN {0}PRIVATE KEY-----\n" + BODY + "\n-----END {0}PRIVATE KEY-----"
BLOCKS = [
    (f"key:\n{PEM.format('')}\nend", "key:\n<PRIVATE_KEY>\nend"),
    (PEM.format("RSA "), "<PRIVATE_KEY>"),
    (PEM.format("OPENSSH "), "<PRIVATE_KEY>"),
    (PEM.format("EC ").rpartition("\n")[0] + "\nand so on", "<PRIVATE_KEY>\nand so on"),  # cut short
    (PEM.format("").replace("PRIVATE", "PUBLIC"), None),
    ("a PRIVATE KEY is secret", None),
]


@pytest.mark.parametrize(("text", "expected"), CARDS + IBANS + KEYS + BLOCKS)
def test_what_proves_itself_is_masked_and_nothing_else(text, expected):
    config = Config(kinds=["private_key", "api_key", "iban", "card"])
    masked, counts = mask(text, config)
    assert masked == (text if expected is None else expected)
    assert sum(counts.values()) == (expected is not None)
    assert mask(masked, config)[0] == masked


NATIONAL = [
    ("Sie erreichen uns unter 030 901820 22.", "de", "Sie erreichen uns unter <PHONE>."),
    ("Appelez le 01 42 68 53 00 demain", "fr", "Appelez le <PHONE> demain"),
    ("ring 020 7946 0958 now", "en", "ring <PHONE> now"),
    ("(030) 901820-22", "de", "<PHONE>"),
    ("03-1234-5678", "ja", "<PHONE>"),
    ("Appelez le 01 42 68 53 00 demain", "es", None),  # Spanish numbers have no leading 0
    ("Seite 01 02 03", "de", None),
    ("0.95 0.96 0.97 and 00:01:02 and 2021-01-02", "en", None),
    ("ISBN 0 13 110362 8", "en", None),
    ("1.024 030.901820", "de", None),
    ("chmod 0644 0755", "en", None),
    ("01 42 68 53 00", None, None),
]


@pytest.mark.parametrize(("text", "language", "expected"), NATIONAL)
def test_national_numbers_by_the_documents_language(text, language, expected):
    assert mask(text, Config(), language)[0] == (text if expected is None else expected)


@given(st.integers(10**14, 10**15 - 1))
def test_one_check_digit_of_ten_is_right_and_every_wrong_digit_is_seen(number):
    right = [digit for digit in range(10) if luhn(f"{number}{digit}")]
    assert len(right) == 1
    changed = f"{(number + 1) % 10**15:015d}{right[0]}"
    assert not luhn(changed)
    assert not is_card("7" + changed)


HOSTILE = ["4111 " * 9_999, "DE89 " * 9_999, "eyJ" * 20_000, "sk-" * 20_000, "0 1" * 20_000, "01 " * 20_000]
HOSTILE += ["-----BEGIN PRIVATE KEY-----" * 2_000, "-----BEGIN PRIVATE KEY-----" + "\nA" * 40_000, "A1" * 30_000]


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:6] for text in HOSTILE])
def test_hostile_texts_end(text):
    assert mask(text, Config(), "de")[0]  # a pattern that backtracks would not come back
