"""More text from the text that is there: copies of training documents with synonyms, paraphrased or translated back.

Optional, and recorded: the documents that came in are kept as they are, and each copy is a document of its own in
the table `augmented`. Its id follows from its origin's, the method and a number; its source is the origin's with
``+METHOD``; its metadata name ``origin`` and ``augmentation``; its cluster is the origin's, so that the split is
too. Copies are made of documents that `publish` puts into train alone. Scores and language are the origin's.
"""

from __future__ import annotations

import re
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dataeng.recipe import Table, content, runtime

METHODS = ("synonyms", "paraphrase", "back_translation")
_PARAPHRASE = (
    "Rewrite the following text in other words, in the same language ({language}). Keep its meaning, its names, "
    "its numbers and about its length. Answer with the rewritten text alone.\n\n{text}"
)
_FORTH = "Translate the following text from {language} to {through}. Answer with the translation alone.\n\n{text}"
_BACK = "Translate the following text from {through} to {language}. Answer with the translation alone.\n\n{text}"


class Method(Table):
    """What every method is told."""

    languages: list[str] = Field(min_length=1, description="Only documents in these languages")
    documents: float = Field(1.0, gt=0, le=1, description="Share of the training documents, drawn by cluster and seed")
    copies: int = Field(1, ge=1, le=16, description="Copies of a document")


class Synonyms(Method):
    """Words replaced by those that a dictionary of the user's gives for them."""

    dictionary: str = content(description="A word, tab, its synonyms, tabs between; or JSON: {word: [synonyms]}")
    share: float = Field(0.1, gt=0, le=1, description="Share of the words in the dictionary that are replaced")


class Rewriting(Method):
    """Sentences rewritten by a model."""

    sentences: int = Field(4, ge=1, le=64, description="Sentences of a line that are rewritten together")
    most_characters: int = Field(50_000, ge=1, description="Longer documents are not rewritten")
    shortest: float = Field(
        0.3, ge=0, lt=1, description="Answers shorter than this share of the original count as none"
    )
    longest: float = Field(3.0, gt=1, description="Answers longer than so many times the original count as none")
    changed: float = Field(0.5, gt=0, le=1, description="Share of the characters that must be rewritten for a copy")


def _placeholders(template: str, allowed: set[str]) -> str:
    named = set(re.findall(r"\{(\w+)\}", template))
    if "text" not in named or named - allowed:
        raise ValueError(f"a prompt holds {{text}} and may hold {', '.join(sorted(allowed - {'text'}))} in braces")
    return template


class Paraphrase(Rewriting):
    """Sentences in other words."""

    prompt: str = Field(_PARAPHRASE, description="What is asked; {text} and {language} are filled in")

    @field_validator("prompt")
    @classmethod
    def _prompt(cls, value: str) -> str:
        return _placeholders(value, {"text", "language"})


class BackTranslation(Rewriting):
    """Sentences translated into another language and back."""

    through: str = Field("German", description="The language in between, as the prompts name it")
    forth: str = Field(_FORTH, description="The first prompt; {text}, {language} and {through} are filled in")
    back: str = Field(_BACK, description="The second prompt")

    @field_validator("forth", "back")
    @classmethod
    def _prompts(cls, value: str) -> str:
        return _placeholders(value, {"text", "language", "through"})


class Endpoint(Table):
    """A server that speaks OpenAI's chat completions."""

    base_url: str = runtime(description="Its address up to /chat/completions, such as http://localhost:8000/v1")
    model: str = Field(min_length=1, description="The model that it is asked for")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature")
    maximum_tokens: int = Field(2048, ge=1, description="Most tokens of an answer; one cut off there counts as none")
    key_variable: str | None = runtime(
        None,
        pattern=r"^[A-Za-z_]\w*$",
        description="The environment variable that holds the API key; none is sent else",
    )
    timeout_seconds: float = runtime(120.0, gt=0, description="Longest wait for an answer")
    retries: int = runtime(4, ge=0, le=20, description="How often a request that failed is sent again")
    first_pause: float = runtime(1.0, ge=0, description="Seconds before that; doubles with each failure")
    workers: int = runtime(2, ge=1, description="Tasks that ask at a time")
    parallel: int = runtime(4, ge=1, le=256, description="Requests at a time of each of them")
    requests_per_second: float | None = runtime(None, gt=0, description="Most requests a second, of all tasks together")

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an http(s) address without a query, such as http://localhost:8000/v1")
        if "@" in parts.netloc:
            raise ValueError("must hold no password: name the environment variable of the key in key_variable")
        return value.rstrip("/")


class Config(Table):
    """Table `augment`: a table for each method that is to run, and the endpoint that two of them ask."""

    version: ClassVar[int] = 1
    follows: ClassVar[tuple[str, ...]] = ("semantic", "passages", "dedup")

    input: str | list[str] = Field(
        "dedup", description="The stage, or stages, whose kept documents come in; by default the last before this one"
    )
    synonyms: Synonyms | None = Field(None, description="Replace words by synonyms")
    paraphrase: Paraphrase | None = Field(None, description="Have sentences rewritten")
    back_translation: BackTranslation | None = Field(None, description="Have sentences translated and translated back")
    endpoint: Endpoint | None = Field(None, description="Who is asked")

    @model_validator(mode="after")
    def _whole(self) -> Config:
        if not self.input:
            raise ValueError("input names no stage")
        if not self.methods():
            raise ValueError(f"names no method: add a table {' or '.join(f'[augment.{name}]' for name in METHODS)}")
        if self.endpoint is None and (self.paraphrase or self.back_translation):
            raise ValueError("paraphrase and back_translation ask a model: add a table [augment.endpoint]")
        return self

    def methods(self) -> dict[str, Method]:
        """The methods that run, by name."""
        return {name: method for name in METHODS if (method := getattr(self, name)) is not None}
