"""Unigram vocabularies (arXiv:1804.10959), learned so that equal texts give equal vocabularies.

The trainer of `tokenizers` goes by hash tables seeded at random: its pieces differ at every run, with one thread too.
So pieces are learned by byte-pair encoding of characters, four times as many as wanted, which is reproducible; then
each round weighs them by how often the likeliest segmentations of words use them, and drops those whose absence costs
least, until as many are left as wanted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 1000
_SEED = 4  # times the vocabulary that pieces begin with
_KEPT = 0.75  # share of the pieces that a round keeps
_NEVER = -1e4  # score of the unknown token: its text is not a piece of words
Scores = dict[str, float]


def _words(texts: Iterable[str], splits: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splits.pre_tokenize_str(text))
    return counts


def _occurrences(words: list[tuple[str, int]], pieces: set[str]) -> Counter[str]:
    """How often each piece, and each character, stands anywhere in the words, times its length: where to begin."""
    longest, found = max(map(len, pieces), default=1), Counter[str]()
    for word, count in words:
        for begin in range(len(word)):
            found[word[begin]] += count
            for end in range(begin + 2, min(begin + longest, len(word)) + 1):
                if word[begin:end] in pieces:
                    found[word[begin:end]] += count * (end - begin)
    return found


def _model(scores: Scores, unknown: str) -> Any:
    from tokenizers import models

    return models.Unigram([(unknown, _NEVER), *scores.items()], 0, False)


def _used(words: list[tuple[str, int]], scores: Scores, unknown: str) -> Counter[str]:
    """How often each piece stands in the likeliest segmentations of all words."""
    from tokenizers import Tokenizer

    segments, found, source = Tokenizer(_model(scores, unknown)), Counter[str](), iter(words)
    while batch := list(islice(source, _BATCH)):
        for encoded, (_, count) in zip(segments.encode_batch([word for word, _ in batch]), batch, strict=True):
            for piece in encoded.tokens:
                found[piece] += count
    return found


def _weighed(pieces: Iterable[str], counts: Counter[str]) -> Scores:
    """Log-probabilities, the likeliest first; a piece that is not used counts as used half a time."""
    total = sum(counts.values())
    found = {piece: math.log(max(counts[piece], 0.5) / total) for piece in pieces}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def without(piece: str, scores: Scores, longest: int) -> float:
    """The log-probability of a piece's likeliest segmentation into others; -inf where there is none."""
    best = [0.0] + [-math.inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for begin in range(max(0, end - longest), end):
            part = piece[begin:end]
            if part != piece and part in scores:
                best[end] = max(best[end], best[begin] + scores[part])
    return best[-1]


def _pruned(scores: Scores, counts: Counter[str], size: int) -> list[str]:
    """Single characters, and of longer pieces as many as there is room for: those whose absence would cost most."""
    longest = max(map(len, scores))
    single = [piece for piece in scores if len(piece) == 1][:size]
    cost = {p: counts[p] * (s - without(p, scores, longest)) for p, s in scores.items() if len(p) > 1}
    ranked = sorted(cost, key=lambda piece: (-cost[piece], piece))
    return single + ranked[: size - len(single)]


def pieces_of(texts: list[str], unknown: str, vocabulary: int, splits: Any) -> Scores:
    """At most ``vocabulary`` pieces with their log-probabilities, the likeliest first."""
    from tokenizers import Tokenizer, models, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = splits
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=_SEED * vocabulary, show_progress=False))
    words = sorted(_words(texts, splits).items())
    counts = _occurrences(words, set(plain.get_vocab()))
    scores = _weighed(counts, counts)
    while True:
        counts = _used(words, scores, unknown)
        if len(scores) <= vocabulary:
            return _weighed(scores, counts)
        kept = _pruned(_weighed(scores, counts), counts, max(vocabulary, int(_KEPT * len(scores))))
        scores = _weighed(kept, counts)


def learn(texts: list[str], special: list[str], unknown: str, vocabulary: int, splits: Any) -> Tokenizer:
    """A Unigram tokenizer of at most ``vocabulary`` entries; words are what ``splits`` leaves.

    The unknown token comes first and the other ``special`` ones last: as pieces, text could spell them.
    """
    from tokenizers import Tokenizer, decoders

    others = [token for token in special if token != unknown]
    tokenizer = Tokenizer(_model(pieces_of(texts, unknown, vocabulary - len(special), splits), unknown))
    tokenizer.add_special_tokens([unknown, *others])
    tokenizer.pre_tokenizer, tokenizer.decoder = splits, decoders.Metaspace(prepend_scheme="never")
    return tokenizer
