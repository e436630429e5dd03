"""A tokenizer from a bounded, ordered sample: equal inputs give equal bytes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow.parquet as pq
from pydantic import Field

from dataeng import stage, storage
from dataeng.cli import UserError, one_line
from dataeng.recipe import Recipe, Table, content, runtime
from dataeng.tokens import chat, draw, unigram, wordpiece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("millrace")
_BYTES = 256  # the alphabet of a byte-level vocabulary


class Config(Table):
    """The vocabulary, and the text that it is learned from."""

    libraries: ClassVar[tuple[str, ...]] = ("tokenizers",)

    input: str = Field("publish", description="The stage whose table `train` is learned from")
    file: str | None = content(
        None, description="A tokenizer.json to take instead of learning one; special tokens of chats are added to it"
    )
    kind: Literal["bpe", "wordpiece", "unigram", "character", "word"] = Field(
        "bpe", description="bpe works on bytes and leaves nothing out; what the others have not seen is <|unknown|>"
    )
    vocabulary: int = Field(
        32_768, ge=_BYTES + 32, le=1 << 20, description="Entries at most, special tokens and the 256 bytes among them"
    )
    single_digits: bool = Field(True, description="Whether each digit is a token of its own (arXiv:2402.14903)")
    masks: bool = Field(False, description="Whether there is a token <|mask|>, for encoders")
    spans: int = Field(0, ge=0, le=1000, description="Tokens <|span_0|> and so on, for encoder–decoders")
    sample_bytes: int = Field(
        200_000_000, ge=1, description="Bytes of text to learn from: those documents whose ids come first"
    )
    ray_bytes: int = runtime(
        2_000_000_000,
        ge=0,
        description="Bytes of the files to learn from, from which on Ray Data draws the sample (the same one)",
    )


def _rows(path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    system, inner = storage.parquet_filesystem(path)
    with system.open_input_file(inner) as source:
        for batch in pq.ParquetFile(source).iter_batches(1024, columns=columns):
            yield from batch.to_pylist()


def sample(rows: Iterable[dict[str, Any]], limit_bytes: int) -> list[tuple[str, str]]:
    """Languages and texts in the order of their ids, until ``limit_bytes`` of UTF-8; at most twice that is held."""

    def cut(found: list[tuple[str, str, int, str]]) -> list[tuple[str, str, int, str]]:
        found.sort()
        total = 0
        for index, (_, _, size, _) in enumerate(found):
            total += size
            if total >= limit_bytes:
                return found[: index + 1]
        return found

    found: list[tuple[str, str, int, str]] = []
    held = 0
    for row in rows:
        size = len(row["text"].encode("utf-8", "replace"))
        found.append((row["id"], row["text"], size, row.get("language") or ""))
        held += size
        if held >= 2 * limit_bytes:
            found = cut(found)
            held = sum(size for _, _, size, _ in found)
    return [(language, text) for _, text, _, language in cut(found)]


def special_tokens(config: Config) -> list[str]:
    """The special tokens that a vocabulary begins with, in their order."""
    more = [chat.MASK] if config.masks else []
    more += [] if config.kind == "bpe" else [chat.UNKNOWN]
    return [*chat.SPECIAL_TOKENS, *more, *(chat.span(number) for number in range(config.spans))]


def learn(texts: Iterable[str], config: Config) -> Tokenizer:
    """A tokenizer with the special tokens of ``dataeng.tokens.chat`` first.

    ``bpe`` (arXiv:1508.07909) works on bytes: what it encodes, it decodes exactly. ``unigram``, ``character`` and
    ``word`` do so for what they have seen, ``wordpiece`` but for white space. The special tokens of ``unigram`` come
    last, but for the unknown one.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    sized: dict[str, Any] = {"vocab_size": config.vocabulary, "special_tokens": special_tokens(config)}
    digits: list[Any] = [pre_tokenizers.Split(Regex(r"\d"), "isolated")] if config.single_digits else []
    if config.kind == "wordpiece":
        splits = pre_tokenizers.Sequence([*digits, pre_tokenizers.BertPreTokenizer()])
        return wordpiece.learn(list(texts), special_tokens(config), chat.UNKNOWN, config.vocabulary, splits)
    if config.kind == "unigram":
        lines = [pre_tokenizers.Split(Regex(r"\n"), "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
        splits = pre_tokenizers.Sequence([*digits, *lines])
        return unigram.learn(list(texts), special_tokens(config), chat.UNKNOWN, config.vocabulary, splits)
    trainer: Any
    split: Any
    if config.kind == "bpe":
        tokenizer, split = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False, **sized)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        pieces = Regex(r"[\s\S]") if config.kind == "character" else Regex(r"\w+|[^\w\s]|\s")
        tokenizer, split = Tokenizer(models.WordLevel(unk_token=chat.UNKNOWN)), pre_tokenizers.Split(pieces, "isolated")
        trainer = trainers.WordLevelTrainer(show_progress=False, **sized)
        tokenizer.decoder = decoders.Fuse()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, split])
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def fertility(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]], limit_bytes: int = 1 << 20) -> dict[str, Any]:
    """Tokens a word (between white space) and bytes a token, by language, over pairs of language and text.

    Of each language about ``limit_bytes`` are looked at.
    """
    found: dict[str, dict[str, float]] = {}
    for language, text in texts:
        sums = found.setdefault(language or "unknown", {"bytes": 0, "words": 0, "tokens": 0})
        if sums["bytes"] < limit_bytes:
            sums["bytes"] += len(text.encode("utf-8", "replace"))
            sums["words"] += len(text.split())
            sums["tokens"] += len(tokenizer.encode(text, add_special_tokens=False).ids)
    for sums in found.values():
        sums["tokens_per_word"] = round(sums["tokens"] / max(sums["words"], 1), 4)
        sums["bytes_per_token"] = round(sums["bytes"] / max(sums["tokens"], 1), 4)
    return dict(sorted(found.items()))


def taken(path: str) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json`` made elsewhere, special tokens of chats added where it lacks them.

    Raises UserError for a file that holds none.
    """
    tokenizer = load(path)
    if added := chat.complete(tokenizer):
        log.info("tokenizer: %s: %d special tokens added", path, added)
    return tokenizer


# drawn(paths, bytes): the rows (`id`, `text`, `language`) whose ids come first, at least so many bytes of text.
Drawn = Callable[[list[str], int], Iterator[dict[str, Any]]]


def _texts(recipe: Recipe, name: str, config: Config, drawn: Drawn | None) -> list[tuple[str, str]]:
    """Languages and texts to learn from; raises UserError where there are none."""
    folder, manifest = stage.folder_of(recipe.root, config.input), stage.need_manifest(recipe.root, config.input, name)
    paths = stage.table_paths(folder, manifest, "train")
    size = sum(file.bytes for file in manifest.tables["train"].files) if "train" in manifest.tables else 0
    if drawn is not None and size >= max(config.ray_bytes, 1):
        log.info("%s: a sample of %.1f MB of files is drawn by Ray Data", name, size / 1e6)
        rows = drawn(paths, config.sample_bytes)
    else:
        rows = (row for path in paths for row in _rows(path, draw.COLUMNS))
    texts = sample(rows, config.sample_bytes)
    if not texts:
        raise UserError(f"{name}: the table train of {folder} is empty: there is no text to learn from")
    return texts


def make(recipe: Recipe, name: str = "tokenizer", drawn: Drawn | None = None) -> stage.Manifest:
    """Learn and publish ``ROOT/tokenizer``, or find it done; raises UserError without input text.

    ``drawn``: what draws the sample from a large table; without it one process reads all.
    """
    config: Config = recipe.step(name)
    inputs = stage.stage_inputs(recipe.root, config.input, name, "train")
    attempt = stage.begin(recipe, name, inputs)
    if isinstance(attempt, stage.Manifest):
        return attempt
    texts = _texts(recipe, name, config, drawn)
    tokenizer = taken(config.file) if config.file else learn((text for _, text in texts), config)
    size = tokenizer.get_vocab_size()
    if size < config.vocabulary and not config.file:
        log.info("%s: the text gave only %d entries, not %d", name, size, config.vocabulary)
    path = storage.join(attempt.data_folder, "tokenizer.json")
    storage.write_bytes(path, tokenizer.to_str(pretty=True).encode())
    table = stage.file_table(attempt.folder, [path])
    read = sum(len(text.encode("utf-8", "replace")) for _, text in texts)
    counts = {"documents": len(texts), "bytes": read, "vocabulary": size}
    log.info("%s: %d entries from %d documents, %.1f MB", name, size, len(texts), read / 1e6)
    details = {"fertility": fertility(tokenizer, texts)}
    for language, sums in details["fertility"].items():
        log.info("%s: %s: %.2f tokens a word", name, language, sums["tokens_per_word"])
    return attempt.publish(attempt.manifest(tables={"kept": table}, counts=counts, details=details))


def path_of(root: str, name: str, wanted_by: str) -> str:
    """Where the published tokenizer's ``tokenizer.json`` stands; raises UserError where there is none."""
    manifest = stage.need_manifest(root, name, wanted_by)
    return stage.table_paths(stage.folder_of(root, name), manifest)[0]


def load(path: str) -> Tokenizer:
    """The tokenizer at a path; text that spells a special token stays text. Raises UserError where it is none."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(storage.read_bytes(path).decode())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # noqa: BLE001 — tokenizers raises nothing more precise
        raise UserError(f"{path}: is no tokenizer: {one_line(error)}") from None
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()  # what a file may keep of its last use
    tokenizer.no_padding()
    return tokenizer
