"""Decontamination: 500 generated leaks found, by how they were changed, and clean documents lost.

python benchmarks/contamination.py [RUN]      (default: runs/labels, a run of configs/labels.toml)

Items are worked questions of GSM8K's training part, instructions with answers, and MMLU's questions. Each is
put into a page of crawl-a or a passage of a book as a paragraph of its own: as it is (with its answer where it
has under 8 words), in other formats, or with one word in eight substituted, deleted or put in, at places drawn
at random. Clean are crawl-a's pages without a labelled question, the books, and Python's own documentation, under all
those sets, those of the data folder and the generated tasks. That no clean text holds an item used is
looked for first by comparing letters alone. What many documents hold is counted over all of them, as the job does.
"""

from __future__ import annotations

import gzip
import json
import os
import pydoc
import random
import re
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from dataeng import stage, storage
from dataeng.acquire import tasks
from dataeng.decontaminate import Config, EvaluationSet, index, items
from dataeng.decontaminate.items import Item
from dataeng.decontaminate.search import Common, Judge, grams_in
from dataeng.decontaminate.words import words

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
LEAKS = {"verbatim": 170, "reformatted": 170, "edited": 160}
FLOORS = {"verbatim": 1.0, "reformatted": 1.0, "edited": 0.9}
PASSAGE = 8000  # characters of a book that stand for a page
FALSE_DROPS = 0.001
MODULES = """abc argparse array ast asyncio base64 bisect calendar cmath codecs collections configparser contextlib copy
csv ctypes datetime decimal difflib dis doctest email enum fileinput fractions ftplib functools gc getopt glob gzip
hashlib heapq hmac html http imaplib importlib inspect io ipaddress itertools json keyword linecache locale logging
lzma mailbox math mimetypes mmap multiprocessing netrc numbers operator os pathlib pickle pkgutil platform plistlib
pprint profile queue random re sched select shelve shlex shutil signal smtplib socket sqlite3 ssl statistics string
struct subprocess symtable sys tarfile tempfile textwrap threading time timeit token tokenize trace traceback types
typing unicodedata unittest urllib uuid venv warnings wave weakref webbrowser xml zipfile zlib""".split()  # noqa: SIM905
NEW_WORDS = "lantern orchard seventy gently harbour purple beyond ancient notebook swiftly".split()  # noqa: SIM905
missed = 0


class Leak(NamedTuple):
    """A document with an item in it: which item, and how it was changed."""

    text: str
    item: str
    kind: str
    how: str
    size: int  # words of the item


def rows(name: str) -> list[dict]:
    """The rows of a compressed JSONL file of the data folder."""
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def say(what: str, value: str, good: bool) -> None:
    """Print a figure with whether it holds."""
    global missed
    missed += not good
    print(f"{'ok    ' if good else 'MISSED'} {what}: {value}")


def letters(text: str) -> str:
    """A text's letters and digits alone: a comparison that shares nothing with the step's own."""
    return re.sub(r"[\W_]+", "", text.casefold())


def clean_documents(root: str) -> dict[str, list[str]]:
    """The texts that hold no item of the data folder, by where they come from."""
    wanted = [letters(row["eval_text"]) for row in rows("crawl-a/labels.jsonl.gz") if row["kind"] == "contaminated"]
    manifest, folder = stage.need_manifest(root, "extract", "this benchmark"), storage.join(root, "extract")
    paths = stage.table_paths(folder, manifest)
    pages = [text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]
    squeezed = [letters(page) for page in pages]
    clean = [page for page, plain in zip(pages, squeezed, strict=True) if not any(one in plain for one in wanted)]
    print(f"       crawl-a: {len(pages)} documents, {len(pages) - len(clean)} with a labelled question left out")
    books = [row["text"] for row in rows("books/books.jsonl.gz")]
    passages = [book[start : start + PASSAGE] for book in books for start in range(0, len(book), PASSAGE)]
    manual = [pydoc.plain(pydoc.render_doc(name)) for name in MODULES]
    return {"crawl-a": clean, "books": passages, "python": manual}


def sources() -> tuple[list[Item], list[Item]]:
    """The items that leaks are made of, and those that are looked for beside them."""
    worked = [
        Item(f"gsm8k_train/{n}", [r["question"]], [r["answer"]]) for n, r in enumerate(rows("sft/gsm8k_train.jsonl.gz"))
    ]
    alpaca = rows("sft/alpaca_en_demo.jsonl.gz")
    told = [
        Item(f"alpaca/{n}", ["\n".join(filter(None, [r["instruction"], r["input"]]))], [r["output"]])
        for n, r in enumerate(alpaca)
    ]
    choice = [
        item
        for path in sorted((DATA / "eval" / "mmlu").glob("*/*.csv"))
        for item in items.read_set(EvaluationSet(name=f"mmlu_{path.stem}", path=str(path)))
    ]
    beside = items.read_set(EvaluationSet(name="humaneval", path=str(DATA / "eval" / "HumanEval.jsonl.gz")))
    path = str(DATA / "eval" / "gsm8k_test_head.jsonl.gz")
    beside += items.read_set(EvaluationSet(name="gsm8k", path=path, fields=["question"], answers=["answer"]))
    generated = tasks.tables(tasks.Config(), 0)["test"]
    beside += [Item(f"tasks/{n}", [row["instruction"]], [row["output"]]) for n, row in enumerate(generated)]
    return [*worked, *told, *choice], beside


def wrapped(text: str, rng: random.Random) -> str:
    """Narrow lines, long words broken by hyphens, a tenth of the line breaks lost or inside a word."""
    lines = textwrap.wrap(text, 34, break_on_hyphens=False)
    out = lines[0]
    for line in lines[1:]:
        first, _, rest = line.partition(" ")
        luck = rng.random()
        if luck < 0.4 and len(first) > 5 and first.isalpha():
            out += f" {first[:3]}-\n{first[3:]} {rest}"
        else:
            out += ("" if luck > 0.95 else "\n") + line
    return out


def in_words(change: Callable[[str], str], share: float = 1.0) -> Callable[[str, random.Random], str]:
    """A change of single words, of a share of them."""
    return lambda text, rng: re.sub(r"\w+", lambda m: change(m[0]) if rng.random() < share else m[0], text)


FORMATS: dict[str, Callable[[str, random.Random], str]] = {
    "upper case": lambda text, rng: text.upper(),
    "title case": lambda text, rng: text.title().replace("'S", "'s"),
    "wrapped": wrapped,
    "no punctuation": lambda text, rng: re.sub(r"(?<!\d)[.,;:!?\"()]|[.,;:!?\"()](?!\d)", " ", text),
    "curly quotes": lambda text, rng: text.replace("'", "’").replace('"', "“").replace("-", "\u2011"),
    "bold": in_words("**{}**".format, 0.3),
    "tags": in_words("<b>{}</b>".format, 0.2),
    "entities": lambda text, rng: text.replace("'", "&#39;").replace('"', "&quot;").replace(" ", "&nbsp;", 5),
    "soft hyphens": in_words(lambda word: "\u00ad".join([word[:3], word[3:]]), 0.5),
    "zero width": in_words(lambda word: "\u200b".join([word[:2], word[2:]]), 0.3),
    "full width": lambda text, rng: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "numbers spaced": lambda text, rng: re.sub(r"(\d),?(\d{3})(?!\d)", "\\1\u202f\\2", text),
    "numbers grouped": lambda text, rng: re.sub(r"(?<!\d)(\d{1,3}),?(\d{3})(?!\d)", r"\1,\2", text),
    "numbers in LaTeX": lambda text, rng: re.sub(r"(\d[\d,]*)", r"$\1$", text),
    "escaped": lambda text, rng: json.dumps(text.replace(". ", ".\n")),
    "no-break spaces": lambda text, rng: text.replace(" ", "\u00a0"),
    "camel": lambda text, rng: re.sub(r" (\w)", lambda m: f"_{m[1].upper()}", text),
}


def edit(text: str, rng: random.Random, every: int = 8) -> tuple[str, str]:
    """The text with one word in ``every`` changed at random places, and how most of them were."""
    parts = text.split()
    how = rng.choice(["substituted", "deleted", "inserted", "mixed"])
    for place in sorted(rng.sample(range(len(parts)), max(1, round(len(parts) / every))), reverse=True):
        kind = how if how != "mixed" else rng.choice(["substituted", "deleted", "inserted"])
        new = [rng.choice(NEW_WORDS)]
        parts[place : place + 1] = {"substituted": new, "deleted": [], "inserted": [*new, parts[place]]}[kind]
    return " ".join(parts), how


def leaked(item: Item, kind: str, number: int, rng: random.Random) -> tuple[str, str]:
    """An item as it stands in a document, and how it was changed."""
    text = item.texts[0]
    if kind == "edited":
        return edit(text, rng)
    if len(words(text)) < Config().shortest:
        text = f"{text}\nAnswer: {item.answers[0]}"
    if kind == "verbatim":
        return text, kind
    names = [list(FORMATS)[number % len(FORMATS)]]
    if number % 2:  # of two, what stands for characters comes last
        names.insert(
            0, rng.choice([name for name in ("upper case", "bold", "wrapped", "no-break spaces") if name != names[0]])
        )
    for name in names:
        text = FORMATS[name](text, rng)
    return text, names[-1]


def leaks(made_of: list[Item], clean: dict[str, list[str]], index_: index.Index, rng: random.Random) -> list[Leak]:
    """The leaks, each in a clean text of its own, between two of its lines."""
    short = {short.item for short in index_.shorts}
    known = {name: n for n, name in enumerate(index_.names)}
    usable = [i for i in made_of if index_.totals[known[i.name]] or known[i.name] in short]
    hosts = [text for name in ("crawl-a", "books") for text in clean[name] if len(text) > 1000]
    kinds = [kind for kind, number in LEAKS.items() for _ in range(number)]
    found = []
    for number, (kind, host) in enumerate(zip(kinds, rng.sample(hosts, len(kinds)), strict=True)):
        while True:
            item = rng.choice(usable)
            size = len(words(item.texts[0]))
            if kind != "edited" or size >= 8:
                break
        text, how = leaked(item, kind, number, rng)
        lines = host.split("\n")
        place = rng.randrange(len(lines) + 1)
        found.append(Leak("\n".join([*lines[:place], "", text, "", *lines[place:]]), item.name, kind, how, size))
    return found


def main() -> None:
    """Print the figures; leave with 1 where a floor is missed."""
    clean = clean_documents((sys.argv[1:] or ["runs/labels"])[0])
    made_of, beside = sources()
    config = Config()
    begin = time.process_time()
    made = index.build([*made_of, *beside], config)
    size = index.memory_bytes(made)
    print(f"       {len(made.names)} items indexed in {time.process_time() - begin:.1f} s: {size / 1e6:.1f} MB, "
          f"{size / len(made.names):.0f} bytes an item")  # fmt: skip
    short = sum(facts["too_short"] for facts in made.sets.values())
    print(f"       too short even with their answers: {short}; of the generated tasks {made.sets['tasks']}")
    own = leaks(made_of, clean, made, random.Random(2026))
    texts = dict.fromkeys(
        letters(i.texts[0]) for name in {leak.item for leak in own} for i in made_of if i.name == name
    )
    plain = {name: "\0".join(map(letters, docs)) for name, docs in clean.items()}
    inside = [text for text in texts if len(text) > 30 and any(text in all_ for all_ in plain.values())]
    say("items used that stand in clean texts", str(len(inside)), not inside)

    everything = [*(leak.text for leak in own), *(text for docs in clean.values() for text in docs)]
    begin = time.process_time()
    total = np.zeros(made.grams, np.int64)
    for text in everything:
        total[grams_in(text, made)] += 1
    counting = time.process_time() - begin
    common = Common(np.flatnonzero(total > config.common_documents).tolist(),
                    np.flatnonzero(total > config.phrase_documents).tolist())  # fmt: skip
    judge = Judge(made, config, common)

    hits = [leak.item in {match.item for match in judge.look(leak.text)[0]} for leak in own]
    for kind, floor in FLOORS.items():
        of_kind = [hit for hit, leak in zip(hits, own, strict=True) if leak.kind == kind]
        say(f"{kind} leaks found", f"{sum(of_kind)} of {len(of_kind)}", sum(of_kind) >= floor * len(of_kind))
    lost = Counter((leak.kind, leak.how) for hit, leak in zip(hits, own, strict=True) if not hit)
    print(f"       not found, by change: {dict(lost) or 'none'}; items of under 10 words among them: "
          f"{sum(not hit and leak.size < 10 for hit, leak in zip(hits, own, strict=True))}")  # fmt: skip

    begin, dropped = time.process_time(), 0
    for name, docs in clean.items():
        found = [(text, matches) for text in docs if (matches := judge.look(text)[0])]
        dropped += len(found)
        share = len(found) / len(docs)
        say(f"clean documents of {name} dropped", f"{len(found)} of {len(docs)}", share <= FALSE_DROPS)
        for text, matches in found[:5]:
            start, end = matches[0].spans[0]
            print(f"       {matches[0][:3]}: {' '.join(words(text)[start:end])[:150]}")
    seconds, number = time.process_time() - begin, sum(map(len, clean.values()))
    print(f"       documents a second: {len(everything) / counting:.0f} counting, {number / seconds:.0f} deciding")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
