"""The rules of `passages` by a plain program that looks at every window and every line. For small corpora."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from typing import Any
from urllib.parse import urlsplit

from dataeng.passages import Config

Rows = list[dict[str, Any]]
Place = tuple[str, int]  # id, character
TOKEN = re.compile(r"[\u3041-\u30ff\u4e00-\u9fff]|[^\s\u3041-\u30ff\u4e00-\u9fff]+")


def in_order(rows: Rows) -> Rows:
    """Documents in the order in which occurrences count as first."""

    def key(row: dict[str, Any]) -> tuple[int, str]:
        data = hashlib.blake2b((row["url"] or row["id"]).encode(), digest_size=8).digest()
        return int.from_bytes(data, "little", signed=True), row["id"]

    return sorted(rows, key=key)


def characters(text: str, start: int, end: int) -> set[int]:
    """The places of a span's characters that are no white space."""
    return {place for place in range(start, end) if not text[place].isspace()}


def by_substrings(rows: Rows, length: int, within: bool) -> dict[str, set[int]]:
    """The characters of each document that stand in a window which stands elsewhere before."""
    firsts: dict[tuple[str, ...], tuple[str, int]] = {}
    found: dict[str, set[int]] = {row["id"]: set() for row in rows}
    for row in in_order(rows):
        spans = [match.span() for match in TOKEN.finditer(row["text"])]
        tokens = [row["text"][start:end] for start, end in spans]
        for index in range(len(tokens) - length + 1):
            first = firsts.setdefault(tuple(tokens[index : index + length]), (row["id"], index))
            if first[0] != row["id"] or (within and first[1] + length <= index):
                whole = spans[index][0], spans[index + length - 1][1]
                found[row["id"]] |= characters(row["text"], *whole)
    return found


def lines_of(row: dict[str, Any]) -> list[tuple[int, int, str]]:
    """Start, end and folded text of all lines, also of empty ones."""
    found, place = [], 0
    for line in row["text"].split("\n"):
        start = place + len(line) - len(line.lstrip())
        found.append((start, start + len(line.strip()), " ".join(line.split())))
        place += len(line) + 1
    return found


def _words(line: str) -> int:
    return sum(any(c.isalpha() for c in token) for token in TOKEN.findall(line))


def by_lines(rows: Rows, config: Any) -> dict[str, set[int]]:
    """The characters of each document's lines that go as a site's boilerplate."""
    site = {row["id"]: urlsplit(row["url"] or "").hostname or row["source"] for row in rows}
    documents = Counter(site.values())
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    firsts: dict[tuple[str, str], tuple[str, int]] = {}
    for row in in_order(rows):
        for number, (_, _, line) in enumerate(lines_of(row)):
            holders[site[row["id"]], line].add(row["id"])
            firsts.setdefault((site[row["id"]], line), (row["id"], number))
    found: dict[str, set[int]] = {}
    for row in rows:
        own, lines = site[row["id"]], lines_of(row)
        common = [line != "" and len(holders[own, line]) >= config.minimum_documents for _, _, line in lines]
        first = [firsts[own, line] for _, _, line in lines]
        blocks: list[list[int]] = []
        for number in range(len(lines)):
            if not common[number]:
                continue
            before = (first[number][0], first[number][1] - 1)
            if blocks and blocks[-1][-1] == number - 1 and first[number - 1] == before:
                blocks[-1].append(number)
            else:
                blocks.append([number])
        gone = {n for n in range(len(lines)) if common[n] and _words(lines[n][2]) >= config.line_words
                and len(holders[own, lines[n][2]]) >= config.minimum_share * documents[own]}  # fmt: skip
        for block in blocks:
            while block and _words(lines[block[0]][2]) < config.line_words:
                block = block[1:]
            while block and _words(lines[block[-1]][2]) < config.line_words:
                block = block[:-1]
            if sum(_words(lines[n][2]) for n in block) >= config.minimum_words:
                gone |= set(block)
        gone = {n for n in gone if first[n] != (row["id"], n)}
        found[row["id"]] = set().union(*(characters(row["text"], *lines[n][:2]) for n in gone), set())
    return found


def removed(rows: Rows, config: Config) -> dict[str, set[int]]:
    """The places of all characters that go, of each document."""
    found: dict[str, set[int]] = {row["id"]: set() for row in rows}
    if "substrings" in config.rules:
        table = config.rule("substrings")
        for name, places in by_substrings(rows, table.tokens, table.within).items():
            found[name] |= places
    if "lines" in config.rules:
        for name, places in by_lines(rows, config.rule("lines")).items():
            found[name] |= places
    return found


def check(rows: Rows, spans: Rows, kept: dict[str, str], config: Config) -> None:
    """Whether a result is right: what went, that each span has its twin, and that no text is lost for good."""
    texts = {row["id"]: row["text"] for row in rows}
    wanted = removed(rows, config)
    found: dict[str, set[int]] = {name: set() for name in texts}
    twin: dict[Place, Place] = {}
    for span in spans:
        text, first = texts[span["id"]], texts[span["first_id"]]
        places = sorted(characters(text, span["start"], span["end"]))
        others = [place for place in range(span["first_start"], len(first)) if not first[place].isspace()]
        assert [text[a] for a in places] == [first[b] for b in others[: len(places)]]
        found[span["id"]] |= set(places)
        for a, b in zip(places, others, strict=False):
            twin.setdefault((span["id"], a), (span["first_id"], b))
    assert found == wanted
    for name, text in kept.items():
        left = "".join(c for place, c in enumerate(texts[name]) if not c.isspace() and place not in wanted[name])
        assert "".join(text.split()) == left
        if wanted[name]:
            assert text.lstrip() == text or texts[name][0].isspace()
            assert text.rstrip() == text or texts[name][-1].isspace()
            assert "\n\n\n" not in text or "\n\n\n" in texts[name]
    for start in twin:
        place = start
        while place in twin:
            place = twin[place]
        assert place[0] in kept, "a text that was cut everywhere"
