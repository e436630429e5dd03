"""Captures for end-to-end tests: pages of seeded English prose in ``.warc.gz`` files, made by warcio."""

from __future__ import annotations

import io
import random
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_SUBJECTS = (
    "The river",
    "A miller",
    "The old wheel",
    "Our neighbour",
    "The council",
    "A young engineer",
    "The harvest",
)
_VERBS = ("carries", "repaired", "remembers", "measured", "described", "followed", "improved", "shared")
_OBJECTS = ("the water", "a wooden gate", "the grain", "the long channel", "a quiet story", "the stone bridge")
_ENDS = (
    "before the village was built",
    "because the rain had stopped",
    "and the people were grateful for it",
    "while the children watched from the bank",
    "although nobody had asked for it",
    "until the work was done",
)


def prose(seed: int, sentences: int = 30) -> str:
    """Sentences in English, the same for the same seed."""
    draw = random.Random(seed)
    made = (
        f"{draw.choice(_SUBJECTS)} {draw.choice(_VERBS)} {draw.choice(_OBJECTS)} number {draw.randint(2, 9999)} "
        f"{draw.choice(_ENDS)}."
        for _ in range(sentences)
    )
    return " ".join(made)


def page(seed: int) -> bytes:
    """A page with a menu, an article of four paragraphs and a footer."""
    paragraphs = "".join(f"<p>{prose(seed * 10 + number, 8)}</p>" for number in range(4))
    html = (
        f"<!doctype html><html lang=en><head><title>Page {seed}</title></head><body><nav><a href=/>Home</a></nav>"
        f"<main><article><h1>The mill, part {seed}</h1>{paragraphs}</article></main><footer>Contact</footer></body>"
        "</html>"
    )
    return html.encode()


def write(folder: Path, files: int, pages: int) -> list[Path]:
    """``files`` captures of ``pages`` pages each; every tenth page is a copy of the one before it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        path = folder / f"crawl-{number:03}.warc.gz"
        with open(path, "wb") as file:
            writer = WARCWriter(file, gzip=True, warc_version="1.1")
            for index in range(pages):
                seed = number * pages + index
                head = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
                record = writer.create_warc_record(
                    f"https://mill.example/{seed}",
                    "response",
                    payload=io.BytesIO(page(seed - 1 if seed % 10 == 9 else seed)),
                    http_headers=head,
                    warc_headers_dict={
                        "WARC-Record-ID": f"<urn:uuid:00000000-0000-4000-8000-{seed:012x}>",
                        "WARC-Date": "2026-01-01T00:00:00Z",
                    },
                )
                writer.write_record(record)
        paths.append(path)
    return paths
