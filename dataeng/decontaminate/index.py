"""The index of evaluation items, built once and broadcast.

An item of 50 words takes about 2 kB: 20 bytes for each of its n-grams, 24 for each anchor (a run of 3
or 4 words by which edited copies are noticed), 4 for each word, 100 for each word of the vocabulary that
it adds. ``memory_bytes`` says what an index takes; every worker holds it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dataeng.decontaminate import Config
from dataeng.decontaminate.grams import Builder, Grams, hashes_of
from dataeng.decontaminate.items import Item
from dataeng.decontaminate.words import is_light, words

TEMPLATE = 8  # words in a row that a set's template must at least have
TEMPLATE_TEXTS = 20  # and the fewest texts that share them
SMALL = 12  # texts of fewer words have anchors of 3 words, others of 4
PIECE = 60  # longer texts are aligned in pieces of at most so many words
ANCHOR_OWNERS = 64  # an anchor of more pieces says nothing
TELLING = 2  # words of an n-gram that are not light (of a whole text: 1); with fewer it says nothing by itself
TELLING_PIECE = 3  # and of a text that is aligned
GAP = 8  # words that may stand between a question and its answer ("The answer is")


class Short(NamedTuple):
    """A short question of an item: parts that must follow it within ``gap`` words (ids of each part's words)."""

    item: int
    size: int
    parts: tuple[tuple[int, ...], ...]
    gap: int


@dataclass(frozen=True)
class Index:
    """Evaluation items, ready to be looked for."""

    vocabulary: dict[str, int]  # from 1; 0 stands for words that no item has
    names: list[str]  # of items
    exact: Grams  # owners: items
    totals: np.ndarray  # int32, different n-grams of each item
    whole: np.ndarray  # bool, items of a template's words alone: only all of their n-grams count
    questions: Grams  # owners: numbers in `shorts`
    shorts: list[Short]
    anchors: Grams  # owners: pieces
    pieces: np.ndarray  # int32, the words of all pieces
    bounds: np.ndarray  # int64, where each piece begins
    piece_items: np.ndarray  # int32
    piece_questions: np.ndarray  # int32, words of the short question that an answer follows; 0: an ordinary piece
    answers: dict[str, list[tuple[int, ...]]]  # of items, where a cut looks for them
    sets: dict[str, dict[str, int]]  # facts of each set

    light: frozenset[int]  # words that say little: the commonest, numbers, single letters
    empty: np.ndarray  # bool, n-grams of `exact` with hardly any other words

    @property
    def sizes(self) -> set[int]:
        """The lengths of n-grams in all tables, in words."""
        return {*self.exact.sizes, *self.questions.sizes, *self.anchors.sizes}

    @property
    def grams(self) -> int:
        """How many n-grams all tables have: they are numbered one table after the other."""
        return len(self.exact) + len(self.questions) + len(self.anchors)


@dataclass
class _Making:
    config: Config
    vocabulary: dict[str, int] = field(default_factory=dict)
    exact: Builder = field(default_factory=Builder)
    questions: Builder = field(default_factory=Builder)
    anchors: Builder = field(default_factory=Builder)
    shorts: list[Short] = field(default_factory=list)
    pieces: list[np.ndarray] = field(default_factory=list)
    piece_items: list[int] = field(default_factory=list)
    piece_questions: list[int] = field(default_factory=list)
    answers: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    light: set[int] = field(default_factory=set)
    empty: list[np.ndarray] = field(default_factory=list)

    def ids(self, text: str) -> np.ndarray:
        """The words of a text as numbers of the vocabulary (uint64)."""
        known, own = self.vocabulary, words(text)
        for word in own:
            if word not in known:
                known[word] = len(known) + 1
                if is_light(word):
                    self.light.add(known[word])
        return np.array([known[word] for word in own], np.uint64)

    def add_exact(self, run: np.ndarray, item: int) -> bool:
        """Add a run's n-grams; False where it is too short for one, or says nothing."""
        size = min(self.config.ngram, len(run))
        if size < min(self.config.shortest, self.config.ngram):
            return False
        self.exact.add(run, size, item)
        counts = np.cumsum([0, *(int(word) not in self.light for word in run)])
        says = counts[size:] - counts[: len(counts) - size]
        least = TELLING if size == self.config.ngram else 1
        self.empty.append(hashes_of(run, size)[says < least])
        return bool((says >= least).any())

    def add_pieces(self, run: np.ndarray, item: int) -> None:
        """Add a run, or its pieces, to what is aligned."""
        number = -(-len(run) // PIECE)
        for piece in np.array_split(run, number) if number else ():
            self.add_piece(piece, item)

    def add_piece(self, piece: np.ndarray, item: int, question: int = 0) -> None:
        """Add one piece, unless it says too little; one of a short question and its answer has its words first."""
        if sum(int(word) not in self.light for word in piece) >= TELLING_PIECE:
            self.anchors.add(piece, 3 if len(piece) < SMALL else 4, len(self.pieces))
            self.pieces.append(piece.astype(np.int32))
            self.piece_items.append(item)
            self.piece_questions.append(question)

    def add_short(self, run: np.ndarray, item: int, answers: list[np.ndarray], options: list[np.ndarray]) -> bool:
        """Add a short question with what must follow it; False where all of it is too short to be sure."""
        wanted = [[answer[: self.config.ngram]] for answer in answers if len(answer)]
        least = self.config.with_answer
        between = sum(len(option) + 2 for option in options)
        if options and all(len(option) for option in options):
            wanted.append([option[: self.config.ngram] for option in options])
        added = False
        for parts in wanted:
            if len(run) >= 3 and len(run) + sum(len(part) for part in parts) >= least:
                self.questions.add(run, len(run), len(self.shorts))
                numbers = tuple(tuple(int(i) for i in part) for part in parts)
                self.shorts.append(Short(item, len(run), numbers, GAP + between))
                if len(parts) == 1:
                    self.add_piece(np.concatenate([run, *parts]), item, len(run))
                added = True
        return added


def build(items: Sequence[Item], config: Config) -> Index:
    """The index of items; those without a text that is long enough are counted as too short."""
    making = _Making(config)
    texts = [[making.ids(text) for text in item.texts] for item in items]
    sets = [item.name.rpartition("/")[0] for item in items]
    facts = {name: {"items": 0, "too_short": 0, "with_answer": 0, "of_template": 0} for name in sets}
    templates = {name: _template([t for own, of in zip(texts, sets, strict=True) if of == name for t in own], config)
                 for name in facts}  # fmt: skip
    whole = np.zeros(len(items), bool)
    for number, (item, own) in enumerate(zip(items, texts, strict=True)):
        fact = facts[sets[number]]
        fact["items"] += 1
        kind = _add(making, number, item, own, templates[sets[number]])
        if kind:
            fact[kind] += 1
        whole[number] = kind == "of_template"
    exact = making.exact.table()
    which, _ = exact.owned(np.arange(len(exact)))
    pairs = np.unique(np.stack([exact.owners, which.astype(np.int32)]), axis=1)
    bounds = np.cumsum([0, *(len(piece) for piece in making.pieces)]).astype(np.int64)
    return Index(
        vocabulary=making.vocabulary,
        names=[item.name for item in items],
        exact=exact,
        totals=np.bincount(pairs[0], minlength=len(items)).astype(np.int32),
        whole=whole,
        questions=making.questions.table(),
        shorts=making.shorts,
        anchors=making.anchors.table(ANCHOR_OWNERS),
        pieces=np.concatenate(making.pieces) if making.pieces else np.zeros(0, np.int32),
        bounds=bounds,
        piece_items=np.array(making.piece_items, np.int32),
        piece_questions=np.array(making.piece_questions, np.int32),
        answers=making.answers,
        sets=facts,
        light=frozenset(making.light),
        empty=np.isin(exact.hashes, np.concatenate(making.empty)) if making.empty else np.zeros(0, bool),
    )


def _add(making: _Making, number: int, item: Item, texts: list[np.ndarray], template: np.ndarray) -> str:
    """Add one item; says what it is where it is no ordinary one: `too_short`, `with_answer`, `of_template`."""
    config = making.config
    answers = [making.ids(answer) for answer in item.answers]
    options = [making.ids(option) for option in item.options]
    if config.action == "cut" and item.answers:
        making.answers[item.name] = [tuple(int(i) for i in answer) for answer in answers if len(answer)]
    found = with_answer = False
    for text in texts:
        for run in _outside(text, template):
            if making.add_exact(run, number):
                found = True
                making.add_pieces(run, number)
            elif len(run) == len(text):  # short, or of the commonest words alone
                with_answer |= making.add_short(run, number, answers, options)
    if found:
        return ""
    if with_answer:
        return "with_answer"
    inside = [making.add_exact(text, number) for text in texts]
    return "of_template" if any(inside) else "too_short"


def _template(texts: Sequence[np.ndarray], config: Config) -> np.ndarray:
    """Hashes (sorted) of the 8 words in a row that many different texts of a set have: its prompt, its boilerplate."""
    different = {text.tobytes(): text for text in texts}.values()
    if len(different) <= TEMPLATE_TEXTS:
        return np.zeros(0, np.uint64)
    grams = [np.unique(hashes_of(text, TEMPLATE)) for text in different]
    hashes, counts = np.unique(np.concatenate(grams), return_counts=True)
    found: np.ndarray = hashes[counts > max(TEMPLATE_TEXTS, config.common_items * len(different))]
    return found


def _outside(text: np.ndarray, template: np.ndarray) -> list[np.ndarray]:
    """The runs of a text's words that no template covers."""
    covered = np.zeros(len(text) + 1, bool)
    for start in np.flatnonzero(np.isin(hashes_of(text, TEMPLATE), template)).tolist() if len(template) else ():
        covered[start : start + TEMPLATE] = True
    covered[-1] = True
    ends = np.flatnonzero(covered)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return [text[start:end] for start, end in zip(starts, ends, strict=True) if end > start]


def memory_bytes(index: Index) -> int:
    """About what an index takes in a worker's memory."""
    arrays: list[Any] = [index.exact, index.questions, index.anchors, index.totals, index.pieces, index.bounds]
    parts = sum(len(part) for short in index.shorts for part in short.parts)
    answers = sum(len(answer) for own in index.answers.values() for answer in own)
    size = sum(array.nbytes for array in arrays) + 36 * (parts + answers) + 200 * len(index.shorts)
    return size + 100 * (len(index.vocabulary) + len(index.names))
