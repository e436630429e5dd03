"""Words replaced by synonyms from a user's dictionary: the same for the same seed, document and place."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping

from dataeng import storage
from dataeng.cli import UserError

Words = Mapping[str, tuple[str, ...]]  # in lower case and NFC
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def read_dictionary(path: str) -> Words:
    """The synonyms of each word; raises UserError with the line where the file is no dictionary."""
    try:
        text = unicodedata.normalize("NFC", storage.read_bytes(path).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"augment.synonyms.dictionary: {path}: cannot be read as UTF-8: {error}") from None
    pairs = _of_json(path, text) if path.endswith(".json") else _of_lines(path, text)
    found: dict[str, tuple[str, ...]] = {}
    for word, others in pairs:
        key = word.lower()
        new = [other for other in others if other.lower() != key]
        found[key] = tuple(dict.fromkeys([*found.get(key, ()), *new]))
    found = {word: others for word, others in found.items() if others}
    if not found:
        raise UserError(f"augment.synonyms.dictionary: {path}: holds no word with a synonym")
    return found


def _of_lines(path: str, text: str) -> list[tuple[str, list[str]]]:
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip() or line.startswith("#"):
            continue
        if len(cells) < 2 or not _WORD.fullmatch(cells[0]) or not all(cells):
            raise UserError(f"augment.synonyms.dictionary: {path}: line {number}: must be a word, a tab, its synonyms")
        pairs.append((cells[0], cells[1:]))
    return pairs


def _of_json(path: str, text: str) -> list[tuple[str, list[str]]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"augment.synonyms.dictionary: {path}: is no JSON: {error}") from None
    wrong = f"augment.synonyms.dictionary: {path}: must be an object of words, each with a list of synonyms"
    if not isinstance(found, dict):
        raise UserError(wrong)
    for word, others in found.items():
        if not isinstance(others, list) or not all(isinstance(other, str) and other.strip() for other in others):
            raise UserError(f"{wrong}; {word!r} has none")
        if not _WORD.fullmatch(word):
            raise UserError(f"{wrong}; {word!r} is no word")
    return [(word, [other.strip() for other in others]) for word, others in found.items()]


def _cased(word: str, like: str) -> str:
    """The word in the case of another: upper, title or as it stands."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def replace(text: str, words: Words, share: float, key: str) -> tuple[str, int]:
    """The text with about ``share`` of the known words replaced, and how many were; a function of ``key`` and place."""
    count = 0

    def one(match: re.Match[str]) -> str:
        nonlocal count
        others = words.get(unicodedata.normalize("NFC", match[0]).lower())
        if not others:
            return match[0]
        drawn = hashlib.blake2b(f"{key}\0{match.start()}".encode(), digest_size=12).digest()
        if int.from_bytes(drawn[:6], "big") >= share * (1 << 48):
            return match[0]
        count += 1
        return _cased(others[int.from_bytes(drawn[6:], "big") % len(others)], match[0])

    return _WORD.sub(one, text), count
