"""Gopher, C4 and FineWeb on one core: the rules here against datatrove's filters, on the same texts in one run.

``python benchmarks/heuristics_speed.py peer=PYTHON [texts=N] [root=runs/labels]`` takes the interpreter of a
virtual environment that has datatrove (``uv pip install "datatrove[processing]" spacy``; no download of its own).
Both sides are pinned to one core and take turns; times are of the CPU, the best of some rounds. Printed are
milliseconds a text, the same for each rule of this project, and a table of parity: how many texts each rule
drops on either side, where the sides differ, and why. Exit status 2 where the peer is not there, 1 below the
floor of 10 times or where rules that are defined alike decide differently.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import trafilatura
from warcio.archiveiterator import ArchiveIterator

from dataeng import stage
from dataeng.cli import Failure, UserError, run
from dataeng.document import Document
from dataeng.filter import Config, apply, bounds, c4, module, url
from dataeng.filter.bounds import Limit
from dataeng.filter.words import unspaced_count

DATA = Path(os.environ.get("DATA_DIR", "../shared/data"))
RULES = ["gopher", "c4", "fineweb"]
ALONE: dict[str, dict[str, Any]] = {
    "gopher": {}, "c4": {}, "fineweb": {}, "lines": {}, "language": {}, "personal_data": {}, "toxicity": {},
    "normalize": {"lower_case": True, "numbers": "zero", "punctuation": True, "stop_words": True, "stem": True},
}  # fmt: skip
LISTED = 1_000_000  # domains of the block list
FLOOR, ROUNDS, BOOK_WORDS = 10, 3, 1500
CONFIG = Config(rules=RULES)

# Limits here, what the peer calls the rule, and where the definitions differ ("" where they are alike: the same
# decisions on the same words, in texts whose lines have no white space at their ends).
SYMBOLS = "gopher.{hashes,ellipses}_per_word.max"  # one parameter of the peer's
WORDS = "the peer leaves out words of signs alone"
SHARE = "the peer counts spaces of an n-gram, over all characters"
PARITY = [
    ("gopher.words.min", "min_doc_words", WORDS),
    ("gopher.words.max", "max_doc_words", WORDS),
    ("gopher.mean_word_length.min", "min_avg_word_length", WORDS),
    ("gopher.mean_word_length.max", "max_avg_word_length", WORDS),
    (SYMBOLS, "max_symbol_word_ratio", ""),
    ("gopher.bullet_lines.max", "max_bullet_lines_ratio", "bullets are • - there; blank lines count as lines there"),
    ("gopher.ellipsis_lines.max", "max_ellipsis_lines_ratio", "blank lines count as lines there"),
    ("gopher.alphabetic_words.min", "max_non_alpha_words_ratio", ""),
    ("gopher.stop_words.min", "min_stop_words", "here whatever the case and punctuation; only English texts"),
    ("gopher.duplicate_paragraphs.max", "dup_para_frac", ""),
    ("gopher.duplicate_paragraph_characters.max", "dup_para_char_frac", "over all characters there"),
    ("gopher.duplicate_lines.max", "dup_line_frac", ""),
    ("gopher.duplicate_line_characters.max", "dup_line_char_frac", "over all characters there"),
    *(
        (f"gopher.top_{n}_gram.max", f"top_{n}", f"{SHARE}, overlaps twice, and one that occurs once")
        for n in (2, 3, 4)
    ),
    *((f"gopher.duplicate_{n}_grams.max", f"dup_{n}", SHARE) for n in range(5, 11)),
    ("c4.lorem_ipsum.max", "filter_lorem_ipsum", "in lines that stay: see c4.lines"),
    ("c4.curly_brackets.max", "filter_curly_bracket", "in lines that stay: see c4.lines"),
    ("c4.sentences.min", "min_num_sentences", "sentences by spaCy's sentencizer there"),
    ("fineweb.line_punctuation.min", "line_punct_thr", "here a quote or bracket may close the sentence"),
    ("fineweb.short_lines.max", "short_line_thr", ""),
    ("fineweb.duplicate_line_characters.max", "char_duplicates_ratio", ""),
    ("fineweb.newlines_per_word.max", "new_line_ratio", ""),
]


def crawl(root: str, count: int) -> list[str]:
    """Texts of crawl-a: those that a run extracted, else of its first pages by trafilatura."""
    found = stage.read_manifest(stage.folder_of(root, "extract"))
    if found:
        paths = stage.table_paths(stage.folder_of(root, "extract"), found[0])
        rows = [row for path in paths for row in pq.read_table(path, columns=["id", "text"]).to_pylist()]
        return [row["text"] for row in sorted(rows, key=lambda row: row["id"])[:count]]
    texts: list[str] = []
    for path in sorted((DATA / "crawl-a").glob("*.warc.gz"))[:1]:
        with open(path, "rb") as file:
            for record in ArchiveIterator(file):
                if record.rec_type == "response" and len(texts) < count:
                    page = trafilatura.extract(record.content_stream().read(), include_comments=False)
                    texts += [page] if page else []
    return texts


def books(count: int) -> Iterator[str]:
    """Pieces of 1,500 words out of the books, some from each."""
    with gzip.open(DATA / "books" / "books.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            words = json.loads(line)["text"].split(" ")
            starts = range(0, len(words) - BOOK_WORDS, max(BOOK_WORDS, len(words) * 60 // count))
            yield from (" ".join(words[k : k + BOOK_WORDS]) for k in starts)


def posts(count: int) -> list[str]:
    """Short texts: posts of the toxicity set, evenly drawn."""
    with gzip.open(DATA / "toxicity" / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    return texts[:: max(1, len(texts) // count)][:count]


def with_language(texts: list[str]) -> list[Document]:
    """The texts as documents, each with the language that the rule `language` finds."""
    config = Config(rules=["language"], language={"keep": []})
    found = [apply(Document(str(k), text), config)["language"] for k, text in enumerate(texts)]
    return [Document(str(k), text, language=code) for k, (text, code) in enumerate(zip(texts, found, strict=True))]


def judged(document: Document, every: bool) -> bool:
    """Whether the rules keep a document; ``every`` goes on after a drop."""
    good = True
    for name in RULES:
        rule, table = module(name), getattr(CONFIG, name)
        document = rule.transform(document, table) if hasattr(rule, "transform") else document
        good = rule.decide(rule.scores(document, table), table).keep and good
        if not good and not every:
            return False
    return good


def seconds(work: Callable[[Document], object], documents: list[Document]) -> tuple[float, int]:
    """CPU seconds of the work on all documents, and how often its result was true."""
    started = time.process_time()
    kept = sum(bool(work(document)) for document in documents)
    return time.process_time() - started, kept


class Peer:
    """datatrove in its own interpreter, asked over pipes."""

    def __init__(self, interpreter: str, file: str) -> None:
        script = str(Path(__file__).with_name("heuristics_peer.py"))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([interpreter, script, file], stdin=pipe, stdout=pipe, text=True)

    def ask(self, group: str, what: str) -> Any:
        """The answer to one request."""
        assert self.process.stdin
        assert self.process.stdout
        print(group, what, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise Failure(f"datatrove ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """Let it end."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def speed(peer: Peer, groups: dict[str, list[Document]]) -> float:
    """Print milliseconds a text on both sides; the least ratio of the chain."""
    print(f"{'':10}{'texts':>7}{'characters':>12}   {'millrace':>9}{'datatrove':>11}{'ratio':>7}{'kept':>12}")
    least = float("inf")
    for group, documents in groups.items():
        size = sum(len(document.text or "") for document in documents) // len(documents)
        for what, every in (("chain", False), ("all", True)):
            ours, theirs = (float("inf"), 0), (float("inf"), 0)
            for _ in range(ROUNDS):
                ours = min(ours, seconds(lambda document, every=every: judged(document, every), documents))
                theirs = min(theirs, tuple(peer.ask(group, what)))
            times = [1000 * one / len(documents) for one in (ours[0], theirs[0])]
            ratio = times[1] / times[0]
            least = min(least, ratio if what == "chain" else least)
            kept = f"{ours[1]}/{theirs[1]}"
            columns = f"{times[0]:9.3f}{times[1]:11.3f}{ratio:7.1f}{kept:>12}"
            print(f"{group:10}{len(documents):7}{size:12,}   {columns}  {what}")
    return least


def rule_speed(groups: dict[str, list[Document]]) -> None:
    """Print milliseconds a text of each rule by itself; the first to read a text pays for its words and lines."""
    print(f"\n{'ms a text':14}" + "".join(f"{group:>12}" for group in groups))
    for name, settings in ALONE.items():
        table, rule = getattr(Config.model_validate({"rules": [name], name: settings}), name), module(name)

        def work(document: Document, rule: Any = rule, table: Any = table) -> None:
            changed = rule.transform(document, table) if hasattr(rule, "transform") else document
            if hasattr(rule, "scores"):
                rule.decide(rule.scores(changed, table), table)

        times = [
            min(seconds(work, documents)[0] for _ in range(ROUNDS)) / len(documents) for documents in groups.values()
        ]
        print(f"{name:14}" + "".join(f"{1000 * one:12.3f}" for one in times))


def url_speed() -> None:
    """Print what a large block list costs to read and to ask."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"site{number}.example{number % 977}.com\n" for number in range(LISTED))
        file.flush()
        config = url.Config.model_validate({"lists": [file.name]})
        started = time.process_time()
        size = url.load(tuple(config.lists)).nbytes
        loaded = time.process_time()
        asked = [
            f"https://www.site{number}.example{number % 977}.com/a/page?x=1" for number in range(0, 2 * LISTED, 200)
        ]
        blocked = sum(not url.verdict(one, config).keep for one in asked)
        each = 1e6 * (time.process_time() - loaded) / len(asked)
    print(f"\nurl: {LISTED:,} domains read in {loaded - started:.1f} s, held in {size / 1e6:.0f} MB; ", end="")
    print(f"{each:.0f} µs an address ({blocked:,} of {len(asked):,} blocked)")


def drops(documents: list[Document]) -> dict[str, list[bool]]:
    """Which documents each limit alone drops; C4's are judged on the lines that stay."""
    scored = []
    for document in documents:
        left = c4.transform(document, CONFIG.c4)  # type: ignore[attr-defined]
        scored.append(
            module("gopher").scores(document, CONFIG.gopher)  # type: ignore[attr-defined]
            | c4.scores(left, CONFIG.c4)  # type: ignore[attr-defined]
            | module("fineweb").scores(document, CONFIG.fineweb)  # type: ignore[attr-defined]
        )
    limits: list[Limit] = [one for name in RULES for one in module(name).limits(getattr(CONFIG, name))]
    found = {f"{one.score}.{one.bound}": [not bounds.decide(each, [one]).keep for each in scored] for one in limits}
    signs = found["gopher.hashes_per_word.max"], found["gopher.ellipses_per_word.max"]
    return found | {SYMBOLS: [a or b for a, b in zip(*signs, strict=True)]}


def lines_kept(document: Document) -> list[str]:
    """The lines that C4's rules keep."""
    return [line.strip() for line in (c4.transform(document, CONFIG.c4).text or "").split("\n") if line.strip()]  # type: ignore[attr-defined]


def plain(text: str) -> bool:
    """Whether both sides cut a text alike: words between spaces, lines without white space at their ends."""
    lines = text.split("\n")
    return not unspaced_count(text) and text.splitlines() == lines and all(line == line.strip() for line in lines)


def parity(peer: Peer, groups: dict[str, list[Document]]) -> list[str]:
    """Print which rules decide alike; the rules that are defined alike but decide differently."""
    documents = [document for group in groups.values() for document in group]
    ours, theirs = drops(documents), {}
    answers = [peer.ask(group, "rules") for group in groups]
    for name in answers[0]["drops"]:
        theirs[name] = [flag == "1" for answer in answers for flag in answer["drops"][name]]
    print(
        f"\n{'texts that each rule alone drops':43}{'here':>6}{'there':>7}{'differ':>8}{'same words':>12}{'plain':>7}"
    )
    broken: list[str] = []
    alike = [plain(document.text or "") for document in documents]
    for limit, name, why in PARITY:
        differ = [a != b for a, b in zip(ours[limit], theirs[name], strict=True)]
        same = theirs.get(f"{name}, same words", theirs[name])
        same_words = [a != b for a, b in zip(ours[limit], same, strict=True)]
        of_plain = sum(a and b for a, b in zip(same_words, alike, strict=True))
        counts = f"{sum(ours[limit]):6}{sum(theirs[name]):7}{sum(differ):8}{sum(same_words):12}{of_plain:7}"
        print(f"{limit:43}{counts}  {why or 'alike'}")
        broken += [limit] if of_plain and not why else []
    kept = [lines for answer in answers for lines in answer["lines"]]
    mine = [lines_kept(document) for document in documents]
    pairs = list(zip(mine, kept, strict=True))
    apart = sum(len(set(a) ^ set(b)) for a, b in pairs)
    why = "here ends of other scripts too, and notices by language; there citations go first"
    print(f"{'c4.lines: lines that stay':43}{sum(map(len, mine)):6}{sum(map(len, kept)):7}{apart:8}{'':19}  {why}")
    return broken


def main(arguments: list[str]) -> None:
    options = dict(argument.partition("=")[::2] for argument in arguments)
    interpreter, count = options.get("peer", ""), int(options.get("texts", 300))
    if not interpreter or subprocess.run([interpreter, "-c", "import datatrove, spacy"], check=False).returncode:
        raise UserError('peer=PYTHON: name an interpreter with datatrove: uv pip install "datatrove[processing]" spacy')
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    texts = {
        "crawl-a": crawl(options.get("root", "runs/labels"), count),
        "books": list(books(count)),
        "posts": posts(count),
    }
    groups = {name: with_language(found) for name, found in texts.items()}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for name, documents in groups.items():
            file.writelines(json.dumps({"group": name, "text": document.text}) + "\n" for document in documents)
        file.flush()
        peer = Peer(interpreter, file.name)
        judged(replace(groups["books"][0]), True)  # loops are compiled, or read from their cache, at their first call
        try:
            least = speed(peer, groups)
            rule_speed(groups)
            url_speed()
            broken = parity(peer, groups)
        finally:
            peer.close()
    print(f"\nleast ratio of the chain {least:.1f} (floor {FLOOR})")
    if least < FLOOR or broken:
        raise Failure(f"below the floor, or decided otherwise: {', '.join(broken) or f'{least:.1f} times'}")


if __name__ == "__main__":
    run(lambda arguments: main(list(arguments)))
