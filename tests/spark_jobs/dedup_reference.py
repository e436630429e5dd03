"""Deduplication once more, by a plain program: Python's own strings, sets and integers, one document after another.

It shares no code with the step but the rows' format and hash (``dataeng.document``). For a few hundred documents.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from dataeng.dedup import Config
from dataeng.document import Verdict, from_row, row_hash, to_dropped, to_row

Row = dict[str, Any]
Near = dict[str, dict[str, float]]  # for each id its verified neighbours with their Jaccard
Decision = tuple[
    str, str | None, str | None, str | None, float | None
]  # table, rule, duplicate_of, matched, similarity
_ALONE = ("CJK", "KANGXI", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "YI ", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
_ONES = 2**64 - 1


def plain_words(text: str) -> list[str]:
    """Lower-case words without marks, digits as 0; each character of a script without spaces by itself."""
    words, word = [], ""
    for character in [*unicodedata.normalize("NFD", text), " "]:
        category = unicodedata.category(character)
        if category in ("Mn", "Me", "Cf"):
            continue
        letter = category[0] in "LN" or category == "Mc"
        if letter and category != "Nd" and unicodedata.name(character, "").startswith(_ALONE):
            words += [word] * bool(word) + [character]
            word = ""
        elif letter:
            word += "0" if category == "Nd" else character.lower()[0]
        else:
            words += [word] * bool(word)
            word = ""
    return words


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _ONES
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _ONES
    return value ^ (value >> 31)


@cache
def _word_hash(word: str) -> int:
    if unicodedata.name(word[0], "").startswith(_ALONE):
        return _mix((((ord(word) | 1 << 31) + 1) * 0x9E3779B97F4A7C15) & _ONES)
    state = 0
    for character in word:
        state = ((state ^ ord(character)) * 0x9E3779B97F4A7C15) & _ONES
        state ^= state >> 32
    return _mix(state)


def plain_shingles(text: str, n: int) -> set[tuple[str, ...]]:
    """The runs of n words, as words."""
    words = plain_words(text)
    return {tuple(words[k : k + n]) for k in range(len(words) - n + 1)}


def plain_bands(shingles: Iterable[tuple[str, ...]], config: Config) -> list[int]:
    """The band hashes by the formulas of ``dataeng.dedup``, as signed integers."""
    values = []
    for shingle in shingles:
        state = 0
        for word in shingle:
            state = (state * 0xD6E8FEB86659FD93 + _word_hash(word)) & _ONES
        values.append(_mix(state))
    count = config.bands * config.rows
    draws = [_mix((config.hash_seed + 0x9E3779B97F4A7C15 * (k + 1)) & _ONES) for k in range(2 * count)]
    minima = [min((draws[k] | 1) * x + draws[count + k] & _ONES for x in values) for k in range(count)]
    found = []
    for band in range(config.bands):
        state = ((band + 1) * 0x9E3779B97F4A7C15) & _ONES
        for least in minima[band * config.rows : (band + 1) * config.rows]:
            state = _mix(((state ^ least) * 0xD6E8FEB86659FD93) & _ONES)
        state >>= 64 - config.hash_bits
        found.append(state - (1 << 64) if state >> 63 else state)
    return found


def plain_exact(text: str) -> str:
    """SHA-256 of the text in NFC, white space folded."""
    return hashlib.sha256(" ".join(unicodedata.normalize("NFC", text).split()).encode()).hexdigest()


def plain_rank(row: Row, keep: str) -> float:
    """The lower, the rather a document survives."""
    if keep == "longest":
        return -len(row["text"] or "")
    if keep == "earliest":
        try:
            date = datetime.fromisoformat(row["date"] or "")
        except ValueError:
            return math.inf
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    return -dict(row["scores"] or {}).get(keep.removeprefix("highest:"), -math.inf)


class Plain:
    """Everything decided about some rows; ``tables`` are the rows that the step must publish."""

    def __init__(self, rows: list[Row], config: Config) -> None:
        self.config = config
        self.order = sorted(rows, key=_place)
        self.firsts: dict[str, Row] = {}
        for row in self.order:
            self.firsts.setdefault(row["id"], row)
        self.rank = {name: (plain_rank(row, config.keep), name) for name, row in self.firsts.items()}
        groups = defaultdict(list)
        for name in sorted(self.firsts, key=lambda name: self.rank[name]):
            groups[plain_exact(self.firsts[name]["text"] or "")].append(name)
        self.exact = {name: key for key, names in groups.items() for name in names}
        self.representative = {name: names[0] for names in groups.values() for name in names}
        self.shingles = {n: plain_shingles(row["text"] or "", config.shingle_words) for n, row in self.firsts.items()}
        enough = [name for name, found in self.shingles.items() if len(found) >= config.minimum_shingles]
        self.bands = {name: plain_bands(self.shingles[name], config) for name in enough}
        self.near: Near = {name: {} for name in set(self.representative.values())}
        bands = {name: found for name, found in self.bands.items() if name in self.near}
        self.cut_off, larger = self._compare(bands)
        clusters = {name: reach(name, self.near) for name in self.near}
        left = {min(found, key=lambda n: self.rank[n]) for found in clusters.values()}
        for band, value in larger:
            self._block([name for name in left & bands.keys() if bands[name][band] == value])
        clusters = {name: reach(name, self.near) for name in self.near}
        self.survivor = {name: min(found, key=lambda n: self.rank[n]) for name, found in clusters.items()}
        self.cluster = {name: min(self.exact[n] for n in found) for name, found in clusters.items()}

    def jaccard(self, one: str, other: str) -> float:
        """Exact Jaccard of two documents' shingles."""
        a, b = self.shingles[one], self.shingles[other]
        return len(a & b) / len(a | b)

    def _compare(self, bands: dict[str, list[int]]) -> tuple[int, set[tuple[int, int]]]:
        """Fill ``near`` round by round; gives how many bands are not done after the last, and the larger ones done."""
        size, count = self.config.block_documents, self.config.bands
        members = {band: set(bands) for band in range(count)}
        larger: set[tuple[int, int]] = set()
        for number in range(self.config.max_rounds):
            large: set[tuple[int, int]] = set()
            hubs: dict[int, set[str]] = {band: set() for band in range(count)}
            for band, names in members.items():
                groups = defaultdict(list)
                for name in sorted(names, key=lambda n: (bands[n][(band + 1 + number) % count], n)):
                    groups[bands[name][band]].append(name)
                for value, group in groups.items():
                    large |= {(band, value)} if len(group) > size else set()
                    for start in range(0, len(group), size):
                        found = self._block(group[start : start + size])
                        hubs[band] |= found if len(group) > size else set()
            larger |= large
            members = hubs
        return len(large), larger - large

    def _block(self, names: list[str]) -> set[str]:
        """Compare all with all; gives the least of each component."""
        inside: Near = {name: {} for name in names}
        for one in names:
            for other in names:
                if one < other and (jaccard := self.jaccard(one, other)) >= self.config.threshold:
                    inside[one][other] = inside[other][one] = jaccard
        for name, found in inside.items():
            self.near[name] |= found
        return {min(reach(name, inside)) for name in names}

    def decisions(self) -> Iterator[tuple[Row, Decision]]:
        """What becomes of each row."""
        seen: set[str] = set()
        for row in self.order:
            name, stands = row["id"], self.representative[row["id"]]
            last = self.survivor[stands]
            if name in seen:
                yield row, ("dropped", "duplicate_id", last, name, None)
            elif name != stands:
                yield row, ("dropped", "exact", last, stands, 1.0)
            elif name != last:
                value, matched = min((-jaccard, other) for other, jaccard in self.near[name].items())
                yield row, ("dropped", "near_duplicate", last, matched, round(-value, 6))
            else:
                yield row, ("kept", None, None, None, None)
            seen.add(name)

    def tables(self) -> dict[str, list[Row]]:
        """The rows of tables kept, dropped and signatures."""
        found: dict[str, list[Row]] = {"kept": [], "dropped": [], "signatures": []}
        for row, (table, rule, last, matched, similarity) in self.decisions():
            document = from_row(row)
            if table == "kept":
                document.metadata["cluster"] = self.cluster[row["id"]][:32]
                found["kept"].append(to_row(document))
                continue
            bound = {"exact": (1.0, 1.0, "max"), "near_duplicate": (similarity, self.config.threshold, "max")}
            why = Verdict(False, rule, *bound.get(rule or "", ()))  # type: ignore[arg-type]
            more = {"duplicate_of": last, "matched": matched, "similarity": similarity}
            found["dropped"].append(to_dropped(document, "dedup", why, **more))
        for name in self.firsts:
            signed: Row = {"id": name, "exact": self.exact[name], "shingles": len(self.shingles[name])}
            signed |= {"bands": self.bands.get(name, []), "survivor": self.survivor[self.representative[name]]}
            found["signatures"].append(signed | {"row_hash": row_hash(signed)})
        return found

    def hashes(self) -> dict[str, str]:
        """Each table's hash: the sum of its rows' hashes modulo 2^128."""
        sums = {name: sum(int(row["row_hash"], 16) for row in rows) for name, rows in self.tables().items()}
        return {name: f"{value % 2**128:032x}" for name, value in sums.items()}


def _place(row: Row) -> tuple[Any, ...]:
    file, offset = row["file"], row["offset"]
    return (file is not None, file or "", offset is not None, offset or 0, row["row_hash"])


def reach(start: str, near: Near) -> set[str]:
    """All ids that a chain of neighbours leads to."""
    found, todo = {start}, [start]
    while todo:
        news = near[todo.pop()].keys() - found
        found |= news
        todo += news
    return found


def deduplicate(rows: list[Row], config: Config) -> dict[str, Decision]:
    """What becomes of each row, by its row_hash (rows of one id and hash: the last word is the kept one's)."""
    found = list(Plain(rows, config).decisions())
    return {row["row_hash"]: decision for row, decision in reversed(found)}
