"""A text rewritten sentence by sentence: its lines stay, and what got no good answer stays as it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dataeng.augment import BackTranslation, Paraphrase, Rewriting
from dataeng.augment.endpoint import Answer, Unanswered

Ask = Callable[[str, int], Answer]
_SLACK = 20  # characters by which a short answer may be longer or shorter than its bounds
# Where a sentence ends: after .!?… and closing marks with white space, or after Chinese and Japanese full stops.
_END = re.compile(r"((?<=[.!?…])\s+|(?<=[.!?…][\"'”’»)\]])\s+|(?<=[。！？])(?=\S))")
_FIELD = re.compile(r"\{(text|language|through)\}")


@dataclass
class Rewritten:
    """A rewritten text and what it took: requests, those unanswered by reason, tokens."""

    text: str = ""
    changed: int = 0  # characters of the original that were rewritten
    asked: int = 0  # characters of the original that could be
    requests: int = 0
    unanswered: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0


def pieces(text: str, sentences: int) -> Iterator[str]:
    """The text in pieces of so many sentences and what stands between them: joined they are the text again."""
    for line in text.splitlines(keepends=True):
        inner = line.strip()
        if not inner:
            yield line
            continue
        start = line.index(inner)
        yield line[:start]
        parts = _END.split(inner)
        for at in range(0, len(parts), 2 * sentences):
            yield "".join(parts[at : at + 2 * sentences - 1])
            yield "".join(parts[at + 2 * sentences - 1 : at + 2 * sentences])
        yield line[start + len(inner) :]


def filled(template: str, **values: str) -> str:
    """The template with its fields filled in at once: what stands in a text is no field."""
    return _FIELD.sub(lambda match: values[match[1]], template)


def _prompts(config: Rewriting) -> list[str]:
    if isinstance(config, BackTranslation):
        return [config.forth, config.back]
    return [config.prompt] if isinstance(config, Paraphrase) else []


def _one(piece: str, config: Rewriting, language: str, seed: int, ask: Ask, found: Rewritten) -> str:
    """A piece rewritten; raises Unanswered."""
    through, text = getattr(config, "through", ""), piece
    for template in _prompts(config):
        found.requests += 1
        answer = ask(filled(template, text=text, language=language, through=through), seed)
        found.prompt_tokens += answer.prompt_tokens
        found.completion_tokens += answer.completion_tokens
        text = answer.text
    if len(text) < len(piece) * config.shortest - _SLACK:
        raise Unanswered("too_short")
    if len(text) > len(piece) * config.longest + _SLACK:
        raise Unanswered("too_long")
    return text


def rewrite(text: str, config: Rewriting, language: str, seed: int, ask: Ask) -> Rewritten:
    """The text with each piece that holds a letter rewritten where a good answer came."""
    found, parts = Rewritten(), []
    for piece in pieces(text, config.sentences):
        part = piece
        if any(character.isalpha() for character in piece):
            found.asked += len(piece)
            try:
                part = _one(piece, config, language, seed, ask, found)
                found.changed += len(piece) if part != piece else 0
            except Unanswered as reason:
                found.unanswered[str(reason)] += 1
        parts.append(part)
    found.text = "".join(parts)
    return found
