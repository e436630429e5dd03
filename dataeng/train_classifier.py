"""Trains a classifier, fastText's or a linear one, from labelled texts: the pure part, without an engine.

What decides is reproducible: texts are told apart by their tokens (``filter.classifier.tokens``),
the held-back part and every limit follow a hash of them, training has one thread and a seed.
A text that stands in one of the `exclude`d captures (half of its shingles of 5 tokens, or of as
many as it has) is left out, so that a labelled crawl can measure what was trained.
"""

from __future__ import annotations

import ast
import ctypes
import gzip
import hashlib
import io
import json
import random
import re
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from dataeng import neutral_sentences, storage, train_linear, warc
from dataeng.cli import UserError
from dataeng.extract.charset import decode
from dataeng.extract.payload import TooLarge, body_of, message_of
from dataeng.filter import linear
from dataeng.filter.classifier import LABEL, probability, tokens
from dataeng.filter.language import load_bytes
from dataeng.precision_recall import measured
from dataeng.recipe import Table, runtime

STDLIB = "stdlib"
GROUPS = "groups"
_SHINGLE = 5
_FEWEST_TOKENS = 3
_M_PERTURB = -6  # of mallopt(3)
_PAGE_BYTES = 32 << 20
_TAG = re.compile(r"<[^>]*>")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Source(Table):
    """An entry of `train_classifier.input`: labelled texts, or texts of one class."""

    path: str = Field(description=f"JSONL (also .gz) or Parquet, below `data`; or {STDLIB!r}, {GROUPS!r}")
    text: list[str] = Field(["text"], min_length=1, description="Fields that hold the text, joined by line ends")
    label: str = Field("label", description="Field that holds the label")
    classes: dict[str, str] = Field({}, description="Class of each label; records with other labels are left out")
    as_class: str | None = Field(None, description="The class of all records, for files without labels")
    piece_words: tuple[int, int] | None = Field(
        None, description="Cut texts into pieces of so many words (log-uniform)"
    )
    limit: int | None = Field(None, ge=1, description="Most examples taken, by hash of their tokens")
    weight: float = Field(1.0, gt=0, description="How much an example counts (`linear` alone)")


class Config(Table):
    """Table `train_classifier`."""

    version: ClassVar[int] = 3
    libraries: ClassVar[tuple[str, ...]] = ("fasttext", "numpy", "scipy")

    data: str = runtime(".", description="Folder that the paths of `input` and `exclude` are below")
    input: list[Source] = Field(min_length=1, description="Where the examples come from")
    exclude: list[str] = Field([], description="Captures (WARC files or patterns) whose texts are left out")
    positive: str = Field("toxic", description="Class whose probability is measured")
    held_back: float = Field(0.1, gt=0, lt=1, description="Share of examples held back, by hash of their tokens")
    most_examples: int = Field(400_000, ge=2, description="Examples that the driver takes; more is an error")
    kind: Literal["fasttext", "linear"] = Field("fasttext", description="`linear`: of two classes (filter.linear)")
    bits: int = Field(20, ge=10, le=21, description="`linear`: the table has 2^bits weights")
    power: float = Field(0.25, ge=0, le=1, description="`linear`: power of the length that sums are divided by")
    cost: float = Field(0.03, gt=0, description="`linear`: weight of the loss against that of large weights")
    dim: int = Field(16, ge=4, description="Length of vectors")
    word_ngrams: int = Field(2, ge=1, description="Longest n-gram of words")
    characters: tuple[int, int] = Field((0, 0), description="Shortest and longest n-gram of characters; 0, 0: none")
    buckets: int = Field(200_000, ge=1000, description="Hash buckets of n-grams")
    minimum_count: int = Field(3, ge=1, description="Fewest occurrences of a word")
    learning_rate: float = Field(0.1, gt=0, description="Learning rate at the start")
    epochs: int = Field(5, ge=1, description="Passes over the examples (`linear`: steps of L-BFGS, some 60)")
    keep_features: int = Field(60_000, ge=0, description="Features kept by quantisation; 0: no quantisation")
    retrain: bool = Field(True, description="Train the kept features once more before quantising")
    copy_to: str | None = runtime(
        None, description="Also copy the model to PATH.ftz (or .npz) and its metrics to PATH.json"
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Probability of `positive` at which metrics are stated")

    def files(self) -> list[str]:
        """Every file read, whose contents change the model."""
        return [path for source in self.input for path in source_files(self, source)] + excluded_files(self)


class Example(NamedTuple):
    """A text as its tokens joined by spaces, its class, and the source that it came from."""

    line: str
    label: str
    source: str
    weight: float = 1.0


def source_files(config: Config, source: Source) -> list[str]:
    """The files of a source; raises UserError where there are none."""
    return [] if source.path in _BUILT_IN else _expand(config, source.path)


def excluded_files(config: Config) -> list[str]:
    """The captures whose texts are left out."""
    return [path for pattern in config.exclude for path in _expand(config, pattern)]


def _expand(config: Config, pattern: str) -> list[str]:
    path = pattern if pattern.startswith(("/", "s3://")) else storage.join(config.data, pattern)
    return [entry.path for _, entry in storage.expand(path)]


def read_source(config: Config, source: Source) -> Iterator[Example]:
    """The examples of a source, in the order of its files; raises UserError for a field that is not there."""
    built_in = _BUILT_IN.get(source.path)
    records = built_in() if built_in else _records(source_files(config, source))
    for place, record in records:
        missing = [name for name in source.text if name not in record]
        if missing:
            raise UserError(f"{place}: has no field {missing[0]!r}; its fields: {', '.join(sorted(record))}")
        label = source.as_class or source.classes.get(str(record.get(source.label)))
        if label is None:
            continue
        text = "\n".join(str(record[name]) for name in source.text if record[name])
        for piece in _pieces(text, source.piece_words):
            found = tokens(piece)
            if len(found) >= _FEWEST_TOKENS:
                yield Example(" ".join(found), label, source.path, source.weight)


def _records(paths: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow.parquet as pq

    for path in paths:
        data = storage.read_bytes(path)
        if path.endswith(".parquet"):
            for number, record in enumerate(pq.read_table(io.BytesIO(data)).to_pylist(), 1):
                yield f"{path}, row {number}", record
            continue
        text = (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}, line {number}", _parsed(line, f"{path}, line {number}")


def _parsed(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: is not a JSON object")
    return record


def _docstrings() -> Iterator[tuple[str, dict[str, Any]]]:
    """The docstrings of Python's own modules: technical text that every machine has."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if {"test", "tests", "site-packages", "idlelib"} & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        except SyntaxError:  # files of lib2to3 that are meant for other versions
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield str(path), {"text": ast.get_docstring(node) or ""}


def _neutral() -> Iterator[tuple[str, dict[str, Any]]]:
    """Plain sentences that name groups of people."""
    return ((GROUPS, {"text": text}) for text in neutral_sentences.sentences())


_BUILT_IN = {STDLIB: _docstrings, GROUPS: _neutral}


def _pieces(text: str, sizes: tuple[int, int] | None) -> Iterator[str]:
    """The text, or pieces of it whose lengths in words are drawn log-uniformly, seeded by the text."""
    if sizes is None:
        yield text
        return
    words, start, draw = text.split(), 0, random.Random(_hash(text, "pieces"))
    while start < len(words):
        size = round(sizes[0] * (sizes[1] / sizes[0]) ** draw.random())
        yield " ".join(words[start : start + size])
        start += size


def _hash(text: str, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=8).digest(), "big")


def unique(examples: Iterable[Example]) -> list[Example]:
    """One example for each line of tokens, the first; lines with two classes are left out."""
    found: dict[str, Example | None] = {}
    for example in examples:
        known = found.setdefault(example.line, example)
        if known is not None and known.label != example.label:
            found[example.line] = None
    return [example for example in found.values() if example is not None]


def limited(config: Config, source: Source) -> list[Example]:
    """The different examples of a source within its limit: those with the least hashes."""
    examples = unique(read_source(config, source))
    return sorted(examples, key=lambda example: _hash(example.line, "limit"))[: source.limit]


def ordered(examples: Iterable[Example], config: Config) -> list[Example]:
    """The different examples of all sources in an order that hashes give; raises UserError for too many."""
    kept = unique(examples)
    if len(kept) > config.most_examples:
        way_out = "raise train_classifier.most_examples, or set limits"
        raise UserError(f"train_classifier: {len(kept):,} examples are more than {config.most_examples:,}: {way_out}")
    return sorted(kept, key=lambda example: _hash(example.line, "order"))


def split(examples: Sequence[Example], config: Config) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and those held back."""
    bound = int(config.held_back * 2**64)
    held = [_hash(example.line, "held back") < bound for example in examples]
    trained = [example for example, back in zip(examples, held, strict=True) if not back]
    return trained, [example for example, back in zip(examples, held, strict=True) if back]


@lru_cache(maxsize=1 << 19)
def _token_hash(token: str) -> int:
    return _hash(token, "token")


def shingles(line: Sequence[str], size: int) -> np.ndarray:
    """64-bit hashes (uint64) of every ``size`` tokens in a row."""
    numbers = np.fromiter(map(_token_hash, line), np.uint64, len(line))
    hashes = np.zeros(max(len(line) - size + 1, 0), np.uint64)
    for start in range(size if len(hashes) else 0):
        hashes = hashes * _FACTOR + numbers[start : start + len(hashes)]
    return hashes


def own_shingles(example: Example) -> np.ndarray:
    """The shingles by which an example is known again: of 5 tokens, or of as many as it has."""
    line = example.line.split(" ")
    return shingles(line, min(_SHINGLE, len(line)))


def found_in_capture(path: str, wanted: np.ndarray) -> np.ndarray:
    """Those of the ``wanted`` shingles (sorted uint64) that stand in the pages of a capture file."""
    found = [np.zeros(0, np.uint64)]
    for item in warc.read(path):
        if isinstance(item, warc.Capture):
            line = tokens(_page_text(item))
            sizes = range(_FEWEST_TOKENS, _SHINGLE + 1)
            found += [_members(shingles(line, size), wanted) for size in sizes]
    return np.unique(np.concatenate(found))


def _members(hashes: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The hashes that are among those (sorted), each once; costs a search a hash however many those are."""
    hashes = np.unique(hashes)
    places = np.searchsorted(among, hashes)
    inside = places < len(among)
    hashes, places = hashes[inside], places[inside]
    return hashes[among[places] == hashes]


def _page_text(capture: warc.Capture) -> str:
    message = message_of(capture)
    try:
        body = body_of(message, _PAGE_BYTES)
    except TooLarge:
        body = message.body[:_PAGE_BYTES]
    return _TAG.sub(" ", decode(body, message.headers.get("content-type", ""))[0])


def without(examples: Sequence[Example], found: np.ndarray) -> list[Example]:
    """The examples of which less than half the shingles were found in captures."""
    if not len(found):
        return list(examples)
    return [example for example in examples if _share(own_shingles(example), found) < 0.5]


def _share(hashes: np.ndarray, among: np.ndarray) -> float:
    return float((among[np.minimum(np.searchsorted(among, hashes), len(among) - 1)] == hashes).mean())


@contextmanager
def _zeroed_memory() -> Iterator[None]:
    """Have malloc hand out zeroed blocks (glibc: the complement of M_PERTURB's value).

    With one thread fastText 0.9.3 initialises only the first tenth of its matrix: what stood in
    the rest of the block would enter the model, or end the training as "Encountered NaN".
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    set_option(_M_PERTURB, 0xFF)
    try:
        yield
    finally:
        set_option(_M_PERTURB, 0)


def train(examples: Sequence[Example], config: Config, seed: int) -> bytes:
    """A model's file, of the kind that the config says."""
    return _linear(examples, config) if config.kind == "linear" else _fasttext(examples, config, seed)


def _linear(examples: Sequence[Example], config: Config) -> bytes:
    others = {example.label for example in examples} - {config.positive}
    if len(others) != 1:
        found = ", ".join(sorted(others)) or "none"
        raise UserError(
            f"train_classifier: a linear model is of two classes: beside {config.positive} there are: {found}"
        )
    return train_linear.train(
        [example.line for example in examples],
        np.array([example.label == config.positive for example in examples]),
        np.array([example.weight for example in examples]),
        (others.pop(), config.positive),
        bits=config.bits, power=config.power, cost=config.cost, passes=config.epochs,
    ).to_bytes()  # fmt: skip


def _fasttext(examples: Sequence[Example], config: Config, seed: int) -> bytes:
    """A fastText model's file, quantised unless ``keep_features`` is 0."""
    import fasttext

    with tempfile.TemporaryDirectory() as folder, _zeroed_memory():
        lines, path = Path(folder, "examples.txt"), Path(folder, "model")
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(f"{LABEL}{example.label} {example.line}\n" for example in examples)
        model = fasttext.train_supervised(
            str(lines), thread=1, seed=seed, verbose=0, dim=config.dim, wordNgrams=config.word_ngrams,
            minn=config.characters[0], maxn=config.characters[1], bucket=config.buckets,
            minCount=config.minimum_count, lr=config.learning_rate, epoch=config.epochs,
        )  # fmt: skip
        if config.keep_features:
            more = {"cutoff": config.keep_features, "retrain": config.retrain, "qnorm": True, "thread": 1, "verbose": 0}
            model.quantize(str(lines), **more)
        model.save_model(str(path))
        return path.read_bytes()


def metrics(data: bytes, examples: Sequence[Example], config: Config) -> dict[str, Any]:
    """What a model (its file's contents) is worth on held-back examples, in all and by source."""
    name = "the trained model"
    model = linear.from_bytes(data, name) if config.kind == "linear" else load_bytes(data, name)
    scores = np.array([probability(example.line, config.positive, model) for example in examples])
    labels = np.array([example.label == config.positive for example in examples])
    sources = np.array([example.source for example in examples])
    found = {"all": measured(scores, labels, config.threshold)}
    for source in sorted(set(sources.tolist())):
        chosen = sources == source
        if len(set(labels[chosen].tolist())) == 2:
            found[source] = measured(scores[chosen], labels[chosen], config.threshold)
    return {"positive": config.positive, "threshold": config.threshold, "held_back": found}
