"""Numbers and strings that prove themselves: payment cards, IBANs, API keys and private keys.

Each function replaces what it finds in a text and says how often. A cheap test comes first, so that a
text without candidates costs one search for each kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# A number of a card in groups of 4 (American Express 4-6-5) or unbroken, as printed on the card.
_CARD = re.compile(
    r"(?<![\w.,+-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|3[47]\d{2}([ -]?)\d{6}\2\d{5}"
    r"|3[068]\d{2}([ -]?)\d{6}\3\d{4})(?![\w]|[.,-]\d)"
)
_DIGIT_RUN = re.compile(r"\d{4}[ -]?\d{4}[ -]?\d{2}")
# Issuers' leading digits and lengths (ISO/IEC 7812 ranges as the networks publish them).
_ISSUERS: tuple[tuple[re.Pattern[str], frozenset[int]], ...] = (
    (re.compile(r"4"), frozenset({13, 16, 19})),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), frozenset({16})),  # Mastercard
    (re.compile(r"3[47]"), frozenset({15})),  # American Express
    (re.compile(r"30[0-5]|3095|36|3[89]"), frozenset({14, 16, 19})),  # Diners Club
    (re.compile(r"6011|64[4-9]|65"), frozenset({16, 19})),  # Discover
    (re.compile(r"35(?:2[89]|[3-8])"), frozenset({16, 19})),  # JCB
    (re.compile(r"62"), frozenset({16, 17, 18, 19})),  # UnionPay
    (re.compile(r"50|5[6-9]|6[37]"), frozenset({16, 18, 19})),  # Maestro
)
# Characters of an IBAN by country (SWIFT's IBAN registry).
_COUNTRIES_BY_LENGTH: dict[int, str] = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {code: length for length, codes in _COUNTRIES_BY_LENGTH.items() for code in codes.split()}
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \u00a0]?[A-Z0-9]){11,29}(?![a-z])")
# Prefixes that the issuers document, each with the length and alphabet of what follows.
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS access key ids
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,255}"  # GitHub
    r"|glpat-[A-Za-z0-9_-]{20,64}"  # GitLab
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}"  # Slack
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,247}|whsec_[A-Za-z0-9]{24,64}"  # Stripe
    r"|sk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,250}"  # OpenAI, Anthropic
    r"|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}"  # Google
    r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"  # SendGrid
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,250}|hf_[A-Za-z0-9]{30,64}"  # npm, PyPI, Hugging Face
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"  # JSON Web Tokens (RFC 7519)
    r")(?![A-Za-z0-9_])"
)
_KEY_SIGNS = ("AKIA", "ASIA", "gh", "github_pat_", "glpat-", "xox", "sk", "rk_", "pk_", "whsec_", "AIza", "GOCSPX-",
              "SG.", "npm_", "pypi-", "hf_", "eyJ")  # fmt: skip
# RFC 7468 blocks; one that is cut short ends with its last line of base64.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s+[A-Za-z0-9+/=]{40,80}(?!\S)){0,200})"
)
_DIGITS = re.compile(r"\D")


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def is_card(number: str) -> bool:
    """Whether a number (digits, with spaces or hyphens) has an issuer's prefix, its length and a right check digit."""
    digits = _DIGITS.sub("", number)
    known = any(start.match(digits) and len(digits) in lengths for start, lengths in _ISSUERS)
    return known and len(set(digits)) > 1 and luhn(digits)


def iban_length(text: str) -> int:
    """How many characters of a text that starts like an IBAN are one (spaces counted), 0 if none (ISO 13616)."""
    wanted, end, taken = _IBAN_LENGTHS.get(text[:2], 0), 0, ""
    while end < len(text) and len(taken) < wanted:
        taken += "" if text[end].isspace() else text[end]
        end += 1
    if not wanted or len(taken) != wanted or text[end : end + 1].isalnum():
        return 0
    number = "".join(str(int(character, 36)) for character in taken[4:] + taken[:4])
    return end if int(number) % 97 == 1 else 0


def mask_cards(text: str, placeholder: str) -> tuple[str, int]:
    """The text with card numbers replaced, and how many there were."""
    if not _DIGIT_RUN.search(text):
        return text, 0
    return _replaced(_CARD, text, placeholder, lambda match: len(match[0]) if is_card(match[0]) else 0)


def mask_ibans(text: str, placeholder: str) -> tuple[str, int]:
    """The text with IBANs replaced, and how many there were."""
    return _replaced(_IBAN, text, placeholder, lambda match: iban_length(match[0]))


def mask_keys(text: str, placeholder: str) -> tuple[str, int]:
    """The text with API keys and JSON Web Tokens replaced, and how many there were."""
    if not any(sign in text for sign in _KEY_SIGNS):
        return text, 0
    return _replaced(_KEY, text, placeholder, lambda match: len(match[0]) if _is_key(match[0]) else 0)


def mask_private_keys(text: str, placeholder: str) -> tuple[str, int]:
    """The text with PEM and PGP blocks of private keys replaced, and how many there were."""
    return _PRIVATE_KEY.subn(placeholder, text) if "PRIVATE KEY" in text else (text, 0)


def _is_key(found: str) -> bool:
    """Whether a match is random enough: a word after `sk-` (a CSS class, a slug) has no digits."""
    return not found.startswith("sk-") or sum(map(str.isdigit, found)) >= 2


def _replaced(
    pattern: re.Pattern[str], text: str, placeholder: str, length: Callable[[re.Match[str]], int]
) -> tuple[str, int]:
    """The text with each match's first ``length(match)`` characters replaced where that is not 0."""
    pieces, start, count = [], 0, 0
    for match in pattern.finditer(text):
        size = length(match)
        if size:
            pieces += [text[start : match.start()], placeholder]
            start, count = match.start() + size, count + 1
    return "".join([*pieces, text[start:]]), count
