"""Masks personal data: addresses, telephone numbers, cards, accounts and keys. A transform: it never drops.

Each becomes the placeholder of its kind (``<EMAIL>``, ``<IP>``, ``<PHONE>``, ``<CARD>``, ``<IBAN>``,
``<API_KEY>``, ``<PRIVATE_KEY>``), in the text, in metadata
and in the address of the page (whose host is kept: it says where the page came from).

Not personal data here: addresses at exactly ``keep_domains``; IP addresses that are not global
(private, loopback, documentation, multicast, netmasks); four numbers of which the words before say
that they are a version or a section; four single digits (``6.3.1.2``, mostly a section) unless the
words before say that they are an address. Any other four numbers count as an address: of the two
mistakes the harmless one. Numbers with a country's code or after a word such as "Tel." are telephone
numbers as they stand; others are where the rules of a country of the document's language, as the
library phonenumbers has them, know such a number and it is written in groups with a leading 0.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import phonenumbers
from pydantic import Field

from dataeng.document import Document
from dataeng.filter import identifiers
from dataeng.recipe import Table

Kind = Literal["private_key", "api_key", "iban", "card", "email", "ip", "phone"]
KINDS: list[Kind] = ["private_key", "api_key", "iban", "card", "email", "ip", "phone"]  # in the order of masking
PLACEHOLDERS: dict[Kind, str] = {kind: f"<{kind.upper()}>" for kind in KINDS}

_AT = r"(?:@|＠|%40|\s?[\[({<]\s?(?:at|@|AT)\s?[\])}>]\s?)"
_DOT = r"(?:\.|\s?[\[({<]\s?(?:dot|DOT|\.)\s?[\])}>]\s?)"
_EMAIL = re.compile(
    rf"(?<![\w.%+-])[\w.%+-]{{1,64}}{_AT}((?:[\w-]{{1,63}}{_DOT}){{1,8}}(?:xn--[\w-]{{2,59}}|[^\W\d_]{{2,24}}))(?![\w-])"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ARCHIVE = r"tar|tgz|zip|deb|rpm|gz|bz2|xz|exe|msi|dmg|whl|jar|dsc|diff|orig|iso|patch"
_IPV4 = re.compile(
    rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?!\w|\.\d|\.(?:{_ARCHIVE})\b|[~+]|-(?!\d{{1,3}}\.\d{{1,3}}\.)\w)", re.ASCII
)
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:versi(?:on|ón|one|ons|e)|versão|ver|v|release|rel|revision|rev|build|kernel|firmware|section|sec|chapter"
    r"|clause|rfc|python|linux|debian|chrome|firefox|mozilla|gcc|glibc|openssl|java|jdk|oid)"
    r"s?\.?\s*(?:number|no\.?)?\s*[:=/(<>~]{0,3}\s*|§\s*|[A-Za-z_][-_/]|[<>=~!]=\s*)$",
    re.IGNORECASE,
)
_ADDRESS_BEFORE = re.compile(
    r"(?:\b(?:ips?|ipv4|address|addr|adresse|adresa|indirizzo|dirección|endereço|host|server|nameserver|ping|from|ssh)"
    r"\s*(?:is|was|at)?\s*[:=(\[<'\"]{0,3}\s*|//|@)$",
    re.IGNORECASE,
)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])")
_SPACE = r"[ \u00a0\u2009\u202f.\-\u2013/]"
_INTERNATIONAL = re.compile(rf"(?<![\w+])\(?(?:\+|%2B)[1-9]\d*\)?(?:{_SPACE}{{0,2}}\(?\d+\)?)*")
_AMERICAN = re.compile(
    rf"(?<![\w.+-])(?:1{_SPACE})?(?:\([2-9]\d\d\){_SPACE}?[2-9]\d\d{_SPACE}|[2-9]\d\d([.\-\u2013])[2-9]\d\d\1|"
    rf"(?<=1{_SPACE})[2-9]\d\d{_SPACE}[2-9]\d\d{_SPACE})\d{{4}}(?!\w|[.-]\d)"
)
_GROUPS = rf"\(?\d+\)?(?:{_SPACE}{{1,2}}\(?\d+\)?|\(\d+\))*+"
# One that a letter follows is no number; it is matched all the same, or each of its groups would be tried anew.
_NUMBER = re.compile(rf"(?<![\w+])(?:{_GROUPS}(?!\w)|(?P<marred>{_GROUPS}))")
_NAME_BEFORE = re.compile(
    r"(?<!\w)(?:tel|tél|phone|telephone|telefon|téléphone|teléfono|telefone|telefono|telefoon|mobile|mobil|cell"
    r"|fax|whatsapp|тел|телефон|факс|電話|电话|传真|전화)\.?\s*(?:no|number|nr|n°|nº|№)?\.?\s*[:：]?\s*$",
    re.IGNORECASE,
)
_AT_SIGN = re.compile(r"[@＠]|%40|[\[({<]\s?(?:at|AT)\s?[\])}>]")
_SEPARATE = re.compile(r"\d+")
_GROUPED = re.compile(
    rf"(?<![\w.,+/:-])(?:\(0\d{{1,4}}\)|0\d{{1,5}}){_SPACE}{{1,2}}\d{{2,8}}(?:{_SPACE}\d{{2,8}}){{0,4}}(?!\w|[.,:/-]\d)"
)
# The countries whose national numbers are looked for in documents of a language.
_REGIONS: dict[str | None, tuple[str, ...]] = {
    "de": ("DE", "AT", "CH"), "fr": ("FR", "BE", "CH"), "nl": ("NL", "BE"), "it": ("IT", "CH"),
    "en": ("GB", "AU", "NZ"),
    "sv": ("SE",), "fi": ("FI",), "ro": ("RO",), "ja": ("JP",), "ko": ("KR",), "zh": ("CN", "TW"), "tr": ("TR",),
    "id": ("ID",), "uk": ("UA",), "sk": ("SK",), "hr": ("HR",), "sl": ("SI",), "bg": ("BG",), "hi": ("IN",),
    "vi": ("VN",), "th": ("TH",), "he": ("IL",), "pt": ("BR",), "ms": ("MY",),
}  # fmt: skip
_URL_HOST = re.compile(r"^[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)


class Config(Table):
    """Table `filter.personal_data`."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("phonenumbers",)

    kinds: list[Kind] = Field(KINDS, description="What is masked, always in this order")
    keep_domains: list[str] = Field(
        ["example.com", "example.org", "example.net"],
        description="Addresses at exactly these domains stay (RFC 2606); those at names below them do not",
    )


def mask(text: str, config: Config, language: str | None = None) -> tuple[str, Counter[str]]:
    """The text with placeholders, and how many of each kind were put in; ``language`` is its ISO 639 code."""
    counts: Counter[str] = Counter()
    for kind in KINDS:
        if kind in config.kinds and kind in _PROVEN:
            text, counts[kind] = _PROVEN[kind](text, PLACEHOLDERS[kind])
        elif kind in config.kinds:
            text = _MASKS[kind](text, config, counts)
    if "phone" in config.kinds and language in _REGIONS:
        text = _national(text, _REGIONS[language], counts)
    return text, counts


def mask_url(url: str, config: Config) -> str:
    """The address with what stands after its host masked, and credentials before the host."""
    host = _URL_HOST.match(url)
    if host is None:
        return mask(url, config)[0]
    start = re.sub(r"//[^/]*@", "//", host[0])
    return start + mask(url[host.end() :], config)[0]


def transform(document: Document, config: Config) -> Document:
    """The document masked, with the counts ``masked.KIND`` of its text."""
    text, counts = mask(document.text or "", config, document.language)
    return replace(
        document,
        text=None if document.text is None else text,
        url=None if document.url is None else mask_url(document.url, config),
        metadata={key: mask(value, config)[0] for key, value in document.metadata.items()},
        scores=document.scores | {f"masked.{kind}": float(counts[kind]) for kind in config.kinds},
    )


def _emails(text: str, config: Config, counts: Counter[str]) -> str:
    def put(match: re.Match[str]) -> str:
        if match[1].lower() in config.keep_domains:
            return match[0]
        counts["email"] += 1
        return PLACEHOLDERS["email"]

    return _EMAIL.sub(put, text) if _AT_SIGN.search(text) else text


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 40) : match.start()]


def _is_address(match: re.Match[str]) -> bool:
    """Whether four numbers are an address rather than a version or the number of a section."""
    before = _before(match)
    if "." not in match[0] or _ADDRESS_BEFORE.search(before):
        return True
    return len(match[0]) > len("1.2.3.4") and not _VERSION_BEFORE.search(before)


def _ips(text: str, config: Config, counts: Counter[str]) -> str:
    def put(match: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:  # groups and colons that make no IPv6 address
            return match[0]
        if not address.is_global or address.is_multicast or not _is_address(match):
            return match[0]
        counts["ip"] += 1
        return PLACEHOLDERS["ip"]

    return _IPV6.sub(put, _IPV4.sub(put, text))


def _phones(text: str, config: Config, counts: Counter[str]) -> str:
    def masked(number: str, least: int) -> str:
        end, digits = 0, 0
        for group in _SEPARATE.finditer(number):  # at most 15 digits (E.164); what follows is another number
            if digits + len(group[0]) > 15:
                break
            end, digits = group.end(), digits + len(group[0])
        if digits < least:
            return number
        counts["phone"] += 1
        return PLACEHOLDERS["phone"] + number[end:].removeprefix(")")

    def put_named(match: re.Match[str]) -> str:
        groups = _SEPARATE.findall(match[0])
        digits = sum(map(len, groups))
        named = digits >= max(6, 2 * len(groups)) and _NAME_BEFORE.search(_before(match))
        if match["marred"] or not named:
            return match[0]
        return masked(match[0], 6)

    text = _INTERNATIONAL.sub(lambda match: masked(match[0].replace("%2B", "+"), 8), text)
    text = _AMERICAN.sub(lambda match: masked(match[0], 10), text)
    return _NUMBER.sub(put_named, text)


def _national(text: str, regions: tuple[str, ...], counts: Counter[str]) -> str:
    def put(match: re.Match[str]) -> str:
        if "." in match[0] and len(_SEPARATE.findall(match[0])) < 3:  # a decimal fraction
            return match[0]
        for region in regions:
            try:
                number = phonenumbers.parse(match[0], region)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                counts["phone"] += 1
                return PLACEHOLDERS["phone"]
        return match[0]

    return _GROUPED.sub(put, text)


_PROVEN: dict[Kind, Callable[[str, str], tuple[str, int]]] = {
    "private_key": identifiers.mask_private_keys,
    "api_key": identifiers.mask_keys,
    "iban": identifiers.mask_ibans,
    "card": identifiers.mask_cards,
}
_MASKS: dict[Kind, Callable[[str, Config, Counter[str]], str]] = {"email": _emails, "ip": _ips, "phone": _phones}
