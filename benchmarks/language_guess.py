"""What the early guess at a page's language drops, against what the full path keeps (`extract.languages`).

    python benchmarks/language_guess.py RUN [CAPTURES] [every=2]

RUN is a run of configs/labels.toml (its step `extract` is published); CAPTURES the folder that it read (default:
DATA_DIR/crawl-a). For each of eleven languages: how many of the pages whose main text is in others the guess
drops at several bounds, and how many pages it drops that the rule `language` would keep at 0.65. Floor: none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dataeng import runs, warc
from dataeng.cli import UserError, run
from dataeng.extract import Config, guess
from dataeng.extract.captures import id_of
from dataeng.extract.charset import decode
from dataeng.extract.payload import body_of, message_of
from dataeng.extract.quick.tree import load
from dataeng.filter import language

LANGUAGES = ("en", "de", "ja", "fr", "zh", "ru", "pt", "es", "it", "sv", "nb")
BOUNDS = (0.02, 0.05, 0.1, 0.2)
KEPT = 0.65


def pages(folder: Path, texts: dict[str, str], every: int) -> Iterator[tuple[str, str]]:
    """The id and visible text of each ``every``-th page whose main text is known."""
    number, caps = 0, Config(input=[str(folder)])
    for path in sorted(folder.glob("*.warc*")):
        for item in warc.read(str(path)):
            if isinstance(item, warc.Capture) and (identifier := id_of(item)) in texts:
                number += 1
                if number % every == 0:
                    message = message_of(item)
                    text, _ = decode(body_of(message, caps.page_bytes), message.headers.get("content-type", ""))
                    if (tree := load(text)) is not None:
                        yield identifier, guess.visible_text(tree)


def main(arguments: Sequence[str]) -> None:
    """Print the table; exit status 1 where a page is lost."""
    plain = [text for text in arguments if not text.startswith("every=")]
    if not plain:
        raise UserError("usage: python benchmarks/language_guess.py RUN [CAPTURES] [every=2]")
    every = int(next((text[6:] for text in arguments if text.startswith("every=")), "2"))
    folder = Path(plain[1] if len(plain) > 1 else Path(os.environ.get("DATA_DIR", "../shared/data"), "crawl-a"))
    extracted = next((one for one in runs.published(plain[0]) if one.name == "extract"), None)
    if extracted is None:
        raise UserError(f"{plain[0]}/extract has not been published: run the pipeline first")
    rows = extracted.dataset("kept").to_table(columns=["id", "text"]).to_pylist()
    texts = {row["id"]: row["text"] for row in rows}
    model = language.load(language.default_model())
    found, lost_in_all, seconds = [], 0, 0.0
    for identifier, visible in pages(folder, texts, every):
        begun = time.process_time()
        guesses = {code: guess.wanted_probability(visible, [language.canonical(code)], model) for code in LANGUAGES}
        seconds += time.process_time() - begun
        found.append((guesses, language.predict(texts[identifier], model)))
    print(f"{len(found)} pages; {1000 * seconds / len(found) / len(LANGUAGES):.2f} ms a guess")
    for code in LANGUAGES:
        kept = [said == language.canonical(code) and score >= KEPT for _, (said, score) in found]
        for bound in BOUNDS:
            dropped = [(p := guesses[code]) is not None and p < bound for guesses, _ in found]
            lost = sum(d and k for d, k in zip(dropped, kept, strict=True))
            lost_in_all += lost
            others = len(found) - sum(kept)
            print(f"{'MISS' if lost else 'ok  '} {code} below {bound}: {sum(dropped)} of {others} others; lost: {lost}")
    sys.exit(1 if lost_in_all else 0)


if __name__ == "__main__":
    run(main)
