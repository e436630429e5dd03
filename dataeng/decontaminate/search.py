"""What of the evaluation items a text holds, by n-grams, by short questions with their answers, by alignment.

Most texts hold no n-gram of any table: they cost one pass over their words. An alignment is only tried
where anchors of a piece stand in the text, two of a longer one at the same distance or nearly so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from dataeng.decontaminate import Config
from dataeng.decontaminate.grams import Read, read
from dataeng.decontaminate.index import GAP, SMALL, Index
from dataeng.decontaminate.words import words
from dataeng.document import Verdict

Kind = Literal["verbatim", "answer", "edited"]
RULES: dict[str, str] = {
    "verbatim": "contaminated",
    "answer": "contaminated.answer",
    "edited": "contaminated.edited",
}
SURE = 0.5  # the share of an item from which common n-grams count too
CLUSTERS = 8  # places of one piece in a text that are tried


class Match(NamedTuple):
    """An item that a text holds: how, the share of it, and the words of the text (from, to) that do."""

    item: str
    kind: Kind
    similarity: float
    spans: tuple[tuple[int, int], ...]


class Common(NamedTuple):
    """Numbers of n-grams (of all tables, sorted) that many documents hold: some are weak, some mean nothing."""

    weak: Sequence[int] = ()
    phrases: Sequence[int] = ()


def _read(text: str, index: Index) -> Read:
    return read(words(text), index.vocabulary, index.sizes)


def grams_in(text: str, index: Index) -> np.ndarray:
    """The numbers (sorted int64, each once) of the n-grams of all tables that stand in a text."""
    own = _read(text, index)
    found, base = [], 0
    for table in (index.exact, index.questions, index.anchors):
        found.append(table.look_up(own)[1] + base)
        base += len(table)
    return np.unique(np.concatenate(found))


def lcs(masks: dict[int, int], size: int, words_: Sequence[int]) -> int:
    """The length of the longest common subsequence of ``size`` words, given as masks of places, and others.

    Bit-parallel: Hyyrö, Bit-Parallel LCS-length Computation Revisited (2004).
    """
    full = (1 << size) - 1
    state = full
    for word in words_:
        if mask := masks.get(word):
            both = state & mask
            state = ((state + both) | (state - both)) & full
    return size - state.bit_count()


class Judge:
    """Looks for the items of an index in texts; knows which of its n-grams say nothing in this corpus."""

    def __init__(self, index: Index, config: Config, common: Common | None = None) -> None:
        self.index, self.config = index, config
        common = common or Common()
        weak, phrase = np.zeros(index.grams, bool), np.zeros(index.grams, bool)
        weak[list(common.weak)] = True
        phrase[list(common.phrases)] = True
        first, second = len(index.exact), len(index.exact) + len(index.questions)
        self._weak, self._phrase = weak[:first], phrase[:first]
        self._phrase_questions, self._weak_anchors = phrase[first:second], weak[second:] | phrase[second:]
        which, at = index.exact.owned(np.flatnonzero(self._phrase))
        lost = np.unique(np.stack([index.exact.owners[at], which.astype(np.int32)]), axis=1)[0]
        self._totals = index.totals - np.bincount(lost, minlength=len(index.names)).astype(np.int32)
        self._spelling = ["", *index.vocabulary]

    def look(self, text: str) -> tuple[list[Match], float]:
        """Every item that a text holds, the surest first, and the greatest share of any item's n-grams in it."""
        own = _read(text, self.index)
        matches, share = self._verbatim(own)
        matches += self._answered(own)
        known = {match.item for match in matches}
        matches += [match for match in self._aligned(own) if match.item not in known]
        order = list(RULES)
        # Ties go to the first: matches come in the items' order, and sorting keeps it.
        return sorted(matches, key=lambda match: (order.index(match.kind), -match.similarity)), share

    def answers_of(self, item: str) -> list[list[str]]:
        """The words of an item's answers; none unless the index was made for cutting."""
        return [[self._spelling[i] for i in answer] for answer in self.index.answers.get(item, ())]

    def _verbatim(self, text: Read) -> tuple[list[Match], float]:
        table = self.index.exact
        positions, numbers = table.look_up(text)
        counted = ~self._phrase[numbers]
        positions, numbers = positions[counted], numbers[counted]
        if not len(numbers):
            return [], 0.0
        which, at = table.owned(numbers)
        owners = table.owners[at]
        matches, greatest = [], 0.0
        for item in np.unique(owners).tolist():
            mine = which[owners == item]
            different = np.unique(numbers[mine])
            share = len(different) / int(self._totals[item])
            greatest = max(greatest, share)
            enough = share == 1 if self.index.whole[item] else share > self.config.share_max
            says = different[~self.index.empty[different]]
            if enough and len(says) and (share >= SURE or not self._weak[says].all()):
                spans = [(p, p + int(table.size_of[n])) for p, n in zip(positions[mine], numbers[mine], strict=True)]
                matches.append(Match(self.index.names[item], "verbatim", share, _merged(spans)))
        return matches, greatest

    def _answered(self, text: Read) -> list[Match]:
        table = self.index.questions
        positions, numbers = table.look_up(text)
        which, at = table.owned(numbers)
        found: dict[int, list[tuple[int, int]]] = {}
        for place, number, short in zip(positions[which], numbers[which], table.owners[at], strict=True):
            wanted = self.index.shorts[short]
            if self._phrase_questions[number]:
                continue
            start = int(place) + wanted.size
            reach = start + wanted.gap + sum(len(part) for part in wanted.parts)
            after = text.ids[start:reach].tolist()
            ends = [_end_of(part, after) for part in wanted.parts]
            if all(ends):
                found.setdefault(wanted.item, []).append((int(place), start + max(ends)))
        return [Match(self.index.names[i], "answer", 1.0, _merged(found[i])) for i in sorted(found)]

    def _aligned(self, text: Read) -> list[Match]:
        best: dict[int, tuple[float, Kind, list[tuple[int, int]]]] = {}
        for piece, first, last in self._candidates(text):
            item = int(self.index.piece_items[piece])
            own = self.index.pieces[self.index.bounds[piece] : self.index.bounds[piece + 1]].tolist()
            question = int(self.index.piece_questions[piece])
            place = max(0, first[0] - first[1]), last[0] + len(own) - last[1]
            share = self._together(text, own, question, *place) if question else self._share(text, own, *place)
            if share:
                known, _, spans = best.get(item, (0.0, "edited", []))
                kind: Kind = "answer" if question else "verbatim" if max(share, known) == 1 else "edited"
                best[item] = (max(known, share), kind, [*spans, _extended(text.ids.tolist(), own, first, last)])
        names = self.index.names
        return [Match(names[i], kind, share, _merged(spans)) for i, (share, kind, spans) in sorted(best.items())]

    def _together(self, text: Read, own: list[int], question: int, start: int, end: int) -> float:
        """1.0 where a short question and, soon after, its answer stand here letter by letter."""
        letters = "".join(text.words[max(0, start - 2) : end + GAP])
        asked, answer = _spelled(own[:question], self._spelling), _spelled(own[question:], self._spelling)
        place = letters.find(asked)
        return float(place >= 0 and answer in letters[place + len(asked) :])

    def _candidates(self, text: Read) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
        """Pieces with two anchors (short ones: one) at nearly one distance, and the first and the last of these.

        An anchor is its first word's place in the text and in the piece.
        """
        table = self.index.anchors
        positions, numbers = table.look_up(text)
        says = ~self._weak_anchors[numbers]
        which, at = table.owned(numbers[says])
        if not len(which):
            return
        pieces, places, positions = table.owners[at], table.places[at], positions[says][which]
        distances = positions - places
        order = np.lexsort((positions, distances, pieces))
        pieces, places, positions, distances = pieces[order], places[order], positions[order], distances[order]
        near = (pieces[1:] == pieces[:-1]) & (distances[1:] - distances[:-1] <= self._slack(pieces[1:]))
        ends = np.flatnonzero(~np.append(near, False)) + 1
        starts = np.concatenate(([0], ends[:-1]))
        first_of = pieces[starts]
        sizes = self.index.bounds[first_of + 1] - self.index.bounds[first_of]
        enough = ends - starts >= np.where(sizes < SMALL, 1, 2)
        for start, end in zip(starts[enough].tolist(), ends[enough].tolist(), strict=True):
            ends_of = start + np.argmin(positions[start:end]), start + np.argmax(positions[start:end])
            first, last = ((int(positions[i]), int(places[i])) for i in ends_of)
            yield int(pieces[start]), first, last

    def _slack(self, pieces: np.ndarray) -> np.ndarray:
        """Words that may be inserted or missing between two anchors: an eighth of the piece, 2 at least."""
        return np.maximum(2, (self.index.bounds[pieces + 1] - self.index.bounds[pieces]) // 8)

    def _share(self, text: Read, own: list[int], start: int, end: int) -> float:
        """The share of a piece that stands about here in a text; 0.0 where it is no copy."""
        slack = max(2, len(own) // 8)
        start, end = max(0, start - slack), end + slack
        if _spelled(own, self._spelling) in "".join(text.words[start:end]):
            return 1.0
        if not self.config.edited or len(own) < self.config.edited_shortest:
            return 0.0
        window = text.ids[start:end].tolist()
        share = self._common(own, window) / len(own)
        heavy = [word for word in own if word not in self.index.light]
        held = self._common(heavy, [word for word in window if word not in self.index.light])
        if share < self.config.edited_min or held < max(HEAVY_LEAST, self.config.edited_min * len(heavy) - 1):
            return 0.0
        return min(share, 1 - 1e-6)

    @staticmethod
    def _common(own: Sequence[int], window: Sequence[int]) -> int:
        masks: dict[int, int] = {}
        for place, word in enumerate(own):
            masks[word] = masks.get(word, 0) | 1 << place
        return lcs(masks, len(own), window)


HEAVY_LEAST = 4  # words that are not among the commonest which an edited copy must share


def _extended(ids: list[int], own: list[int], first: tuple[int, int], last: tuple[int, int]) -> tuple[int, int]:
    """The words of a text from a piece's first to its last there: from the anchors on, as far as its words follow."""
    before = _reach(ids[max(0, first[0] - first[1]) : first[0]][::-1], own[: first[1]][::-1])
    return first[0] - before, last[0] + _reach(ids[last[0] : last[0] + len(own) - last[1]], own[last[1] :])


def _reach(ids: Sequence[int], wanted: list[int]) -> int:
    """How far words that stand in the same order in ``wanted`` reach."""
    reach = 0
    for place, word in enumerate(ids, 1):
        if word in wanted:
            wanted, reach = wanted[wanted.index(word) + 1 :], place
    return reach


def _spelled(ids: Sequence[int], spelling: Sequence[str]) -> str:
    return "".join(spelling[i] for i in ids)


def _end_of(part: tuple[int, ...], ids: list[int]) -> int:
    """Where a part ends at its first place in ``ids``; 0 where it is not there."""
    size = len(part)
    for start in range(len(ids) - size + 1):
        if ids[start] == part[0] and tuple(ids[start : start + size]) == part:
            return start + size
    return 0


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans in order, those that touch made one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((int(a), int(b)) for a, b in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def verdict(matches: Sequence[Match], config: Config) -> Verdict:
    """Drop a document that holds any item; the first match says why."""
    if not matches:
        return Verdict(True)
    first = matches[0]
    threshold = {"verbatim": config.share_max, "answer": 0.0, "edited": config.edited_min}[first.kind]
    return Verdict(False, RULES[first.kind], first.similarity, threshold, "max")
