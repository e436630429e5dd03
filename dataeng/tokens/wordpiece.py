"""WordPiece vocabularies (arXiv:1609.08144), learned so that equal texts give equal vocabularies.

The trainer of `tokenizers` numbers pieces in the order of a hash table seeded at random, and ties are broken by number.
So pieces are learned by byte-pair encoding of characters, which is reproducible, and then counted in the text
as beginnings and as continuations (##) of words; the commonest are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH = 1000
_LONGEST = 100  # characters of a word beyond which it is unknown, as in BERT


def _counted(tokenizer: Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each piece begins a word, or goes on with one (then ## stands before it)."""
    counts: Counter[str] = Counter()
    source = iter(texts)
    while batch := list(islice(source, _BATCH)):
        for encoded in tokenizer.encode_batch(batch, add_special_tokens=False):
            before = None
            for piece, word in zip(encoded.tokens, encoded.word_ids, strict=True):
                counts[f"##{piece}" if word == before else piece] += 1
                before = word
    return counts


def learn(texts: list[str], special: list[str], unknown: str, vocabulary: int, splits: Any) -> Tokenizer:
    """A WordPiece tokenizer of at most ``vocabulary`` entries, ``special`` first; words are what ``splits`` leaves.

    Every character seen is there as a beginning and as a continuation, as far as there is room.
    """
    from tokenizers import Tokenizer, decoders, models, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = splits
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False))
    counts = _counted(plain, texts)
    characters: Counter[str] = Counter()
    for piece, count in counts.items():
        for character in piece.removeprefix("##") if piece != "##" else piece:
            characters[character] += count
    single = [
        form for c, _ in sorted(characters.items(), key=lambda item: (-item[1], item[0])) for form in (c, f"##{c}")
    ]
    common = [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    entries = list(dict.fromkeys([*special, *single, *common]))[: max(vocabulary, len(special))]
    model = models.WordPiece(
        {piece: number for number, piece in enumerate(entries)}, unk_token=unknown, max_input_chars_per_word=_LONGEST
    )
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer, tokenizer.decoder = splits, decoders.WordPiece()
    return tokenizer
