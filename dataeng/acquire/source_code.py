"""Files as documents: plain texts and books, and source code with its language and licence."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dataeng.acquire.ready import Place, dropped, kept, whole
from dataeng.extract.charset import decode
from dataeng.sources import Row

if TYPE_CHECKING:
    from dataeng.acquire.ingest import Config

TEXT_ENDINGS = (".txt", ".md", ".rst", ".text")
# Programming languages by the endings and names that their own tools give files.
LANGUAGES = {
    "Ada": ".adb .ads",
    "Assembly": ".asm .s",
    "C": ".c .h",
    "C#": ".cs",
    "C++": ".cc .cpp .cxx .hh .hpp .hxx",
    "CMake": ".cmake cmakelists.txt",
    "CSS": ".css .scss",
    "Clojure": ".clj .cljs",
    "Cuda": ".cu .cuh",
    "Dart": ".dart",
    "Dockerfile": "dockerfile .dockerfile",
    "Elixir": ".ex .exs",
    "Erlang": ".erl .hrl",
    "F#": ".fs .fsx",
    "Fortran": ".f .f90 .f95 .for",
    "Go": ".go",
    "HTML": ".html .htm",
    "Haskell": ".hs",
    "Java": ".java",
    "JavaScript": ".js .jsx .mjs .cjs",
    "Julia": ".jl",
    "Kotlin": ".kt .kts",
    "Lisp": ".lisp .el .scm",
    "Lua": ".lua",
    "Makefile": "makefile gnumakefile .mk",
    "OCaml": ".ml .mli",
    "Objective-C": ".m .mm",
    "PHP": ".php",
    "Perl": ".pl .pm",
    "PowerShell": ".ps1 .psm1",
    "Python": ".py .pyi .pyx",
    "R": ".r",
    "Ruby": ".rb rakefile gemfile",
    "Rust": ".rs",
    "SQL": ".sql",
    "Scala": ".scala",
    "Shell": ".sh .bash .zsh",
    "Swift": ".swift",
    "TeX": ".tex .sty",
    "TypeScript": ".ts .tsx",
    "Verilog": ".v .sv",
    "VHDL": ".vhd .vhdl",
    "Zig": ".zig",
}
_BY_NAME = {name: language for language, names in LANGUAGES.items() for name in names.split()}
CODE_ENDINGS = tuple(_BY_NAME)
# https://spdx.github.io/spdx-spec/v2.3/using-SPDX-short-identifiers-in-source-files/
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+()-]+(?:[ \t]+(?:AND|OR|WITH)[ \t]+[\w.+()-]+){0,8})")
_HEADER_CHARACTERS = 4000


def language_of(name: str) -> str | None:
    """The programming language that a file's name tells, or None."""
    base = name.rpartition("/")[2].lower().removesuffix(".gz")
    return _BY_NAME.get(base) or _BY_NAME.get("." + base.rpartition(".")[2] if "." in base else "")


def licence_of(text: str) -> str | None:
    """The licence that a file's SPDX header names, or None."""
    found = _SPDX.search(text[:_HEADER_CHARACTERS])
    return " ".join(found[1].split()) if found else None


def file_rows(path: str, name: str, config: Config) -> Iterator[Row]:
    """The one row of a text or code file: kept, or dropped as damaged, too large, binary or of unknown language."""
    try:
        data = whole(path, config.text_bytes)
    except zlib.error:
        data = b""
        yield dropped("damaged", config, Place(name, 0, None))
        return
    if data is None:
        yield dropped("too_large", config, Place(name, 0, None))
        return
    place = Place(name, 0, len(data))
    if b"\0" in data[:65536] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield dropped("binary", config, place)
        return
    text, _ = decode(data, "" if config.kind == "text" else "text/plain; charset=utf-8")
    if config.kind == "text":
        title = name.rpartition("/")[2].removesuffix(".gz").rpartition(".")[0]
        yield kept(config, place, text, name, {"title": title, "licence": licence_of(text)})
        return
    language = language_of(name)
    if language is None:
        yield dropped("unknown_language", config, place, name)
        return
    yield kept(config, place, text, name, {"programming_language": language, "licence": licence_of(text)})
