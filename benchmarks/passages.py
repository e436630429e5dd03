"""What the step `passages` cuts: planted repeats found, characters cut that repeat nowhere, documents a second.

``python benchmarks/passages.py [DOCUMENTS] [STAGE]`` cuts books of DATA_DIR into documents of 1,500 words, plants 500
passages of 40 to 200 tokens in three of them each, and runs the step. What it cut is compared with a table of all
windows. Then the same for the kept documents of STAGE (such as runs/crawl-a/dedup), with the lines cut most by host.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from dataeng import stage
from dataeng.document import Document, digest, to_batch, to_row
from dataeng.recipe import Recipe, Table
from dataeng.runs import Published, to_rows
from dataeng.stage import Attempt
from spark_jobs import passages
from spark_jobs.session import Engine

WORDS, TOKENS = 1500, 50
Texts = dict[str, str]


def books(count: int, length: int = WORDS) -> list[list[str]]:
    """Documents of so many words, as words."""
    path = Path(os.environ.get("DATA_DIR", "../shared/data"), "books", "books.jsonl.gz")
    if not path.exists():
        sys.exit(f"{path}: no books: set DATA_DIR")
    found: list[list[str]] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            words = json.loads(line)["text"].split()
            found += [words[k : k + length] for k in range(0, len(words) - length, length)]
            if len(found) >= count:
                break
    return found[:count]


def plant(documents: list[list[str]], chance: random.Random) -> list[str]:
    """Insert 500 passages of words that stand nowhere else into three documents each; returns them."""
    planted = []
    for number in range(500):
        passage = [f"x{number}y{chance.randrange(10**6)}" for _ in range(chance.randrange(40, 201))]
        for document in chance.sample(documents, 3):
            place = chance.randrange(len(document))
            document[place:place] = [" ".join(passage)]
        planted.append(" ".join(passage))
    return planted


def publish(root: Path, texts: list[str]) -> None:
    """The texts as the kept documents of a stage `texts`."""
    attempt = Attempt("texts", str(root / "texts"), Table(), "0" * 32, [], None)
    path = Path(attempt.data_folder, "table=kept", "part-0.parquet")
    path.parent.mkdir(parents=True)
    rows = [to_row(Document(id=digest(str(number)), text=text, source="books")) for number, text in enumerate(texts)]
    pq.write_table(pa.Table.from_batches([to_batch(rows)]).drop_columns(["table"]), path)
    tables = stage.tables_of([stage.measure(str(path))], attempt)
    attempt.publish(attempt.manifest(tables=tables, counts={"in": len(rows), "kept": len(rows), "dropped": 0}))


def rows(folder: str, table: str, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a published table."""
    manifest = stage.need_manifest("", folder, "this benchmark")
    if not manifest.tables.get(table, stage.TableEntry()).files:
        return []
    return to_rows(Published(folder, folder, manifest).dataset(table).to_table(columns=columns))


def run(root: Path, source: str, rules: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Seconds of the step without the start of Spark, and its spans."""
    spark = {"master": "local[2]", "driver_memory": "2g"}
    recipe = Recipe("benchmark", str(root), 0, {"spark": spark, "passages": {"input": source, "rules": rules}})
    engine = Engine(recipe)
    engine.session()
    started = time.monotonic()
    passages.step(engine, recipe)
    seconds = time.monotonic() - started
    columns = ["id", "start", "end", "rule", "first_id", "first_start"]
    return seconds, rows(str(root / "passages"), "spans", columns)


def surplus(texts: Texts, spans: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Characters in substring spans; of them those in no window that occurs twice; tokens that should be cut and stay.

    A plain table of all windows says what occurs where. Its tokens stand between white space: no Chinese or Japanese.
    """
    firsts: dict[bytes, tuple[str, int]] = {}
    cut: dict[str, bytearray] = {name: bytearray(len(text)) for name, text in texts.items()}
    for span in spans:
        if span["rule"] == "substrings":
            cut[span["id"]][span["start"] : span["end"]] = b"\1" * (span["end"] - span["start"])
    order = sorted(texts, key=lambda name: _rank(name))
    total, wrong, missed = 0, 0, 0
    for name in order:
        text, place, bounds = texts[name], 0, []
        for token in text.split():
            place = text.index(token, place)
            bounds.append((place, place + len(token)))
            place += len(token)
        whole = " ".join(text.split()).encode("utf-8", "surrogatepass")
        starts = [0]
        for start, end in bounds:
            starts.append(starts[-1] + len(text[start:end].encode("utf-8", "surrogatepass")) + 1)
        expected = bytearray(len(bounds))
        for index in range(len(bounds) - TOKENS + 1):
            window = hashlib.sha1(whole[starts[index] : starts[index + TOKENS] - 1]).digest()
            first = firsts.setdefault(window, (name, index))
            if first[0] != name or index - first[1] >= TOKENS:
                expected[index : index + TOKENS] = b"\1" * TOKENS
        for (start, end), should in zip(bounds, expected, strict=True):
            gone = cut[name][start]
            total += (end - start) * gone
            wrong += (end - start) * (gone > should)
            missed += should > gone
    return total, wrong, missed


URLS: dict[str, str | None] = {}


def _rank(name: str) -> tuple[int, str]:
    data = hashlib.blake2b((URLS.get(name) or name).encode(), digest_size=8).digest()
    return int.from_bytes(data, "little", signed=True), name


def found(planted: list[str], texts: Texts, spans: list[dict[str, Any]]) -> tuple[int, int, int, int]:
    """Of the copies that should go: how many, how many do; of passages under 50 tokens: copies cut; first ones cut."""
    by_id: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for span in spans:
        by_id[span["id"]].append((span["start"], span["end"]))
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, text in texts.items():
        for passage in planted:
            if (start := text.find(passage)) >= 0:
                places[passage].append((name, start))
    should = gone = short = both = 0
    for passage, copies in places.items():
        cut = [any(start <= at and at + len(passage) <= end for start, end in by_id[name]) for name, at in copies]
        if len(passage.split()) < TOKENS:
            short += sum(cut)
        else:
            should, gone, both = should + len(copies) - 1, gone + min(sum(cut), len(copies) - 1), both + all(cut)
    return should, gone, short, both


def of_books(count: int) -> None:
    """The measurement on books with planted passages."""
    chance = random.Random(0)
    documents = books(count)
    planted = plant(documents, chance)
    texts = [" ".join(words) for words in documents]
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), texts)
        seconds, spans = run(Path(folder), "texts", ["substrings"])
    by_id = {digest(str(number)): text for number, text in enumerate(texts)}
    should, gone, short, both = found(planted, by_id, spans)
    total, wrong, missed = surplus(by_id, spans)
    print(f"books: {len(texts):,} documents, {len(texts) / seconds:,.0f} a second on local[2] ({seconds:.1f} s)")
    print(f"  planted copies of 50 to 200 tokens cut: {gone:,} of {should:,} (floor: all)")
    print(f"  planted copies of 40 to 49 tokens cut: {short} (floor: 0); passages wholly cut: {both} (floor: 0)")
    print(
        f"  cut characters in no repeated window: {wrong} of {total:,} (floor: 0); tokens of repeats missed: {missed}"
    )


def of_stage(source: str) -> None:
    """The measurement on the kept documents of a stage."""
    documents = {row["id"]: row for row in rows(source, "kept", ["id", "url", "source", "text"])}
    texts = {name: row["text"] or "" for name, row in documents.items()}
    URLS.update({name: row["url"] for name, row in documents.items()})
    with tempfile.TemporaryDirectory() as folder:
        seconds, spans = run(Path(folder), os.path.abspath(source), ["lines", "substrings"])
    total, wrong, missed = surplus(texts, spans)
    characters = sum(map(len, texts.values()))
    print(f"{source}: {len(texts):,} documents, {len(texts) / seconds:,.0f} a second ({seconds:.1f} s)")
    print(
        f"  substrings: {total:,} of {characters:,} characters; in no repeated window: {wrong}; tokens missed: {missed}"
    )
    cut = Counter[tuple[str, str]]()
    for span in spans:
        if span["rule"] == "lines":
            host = urlsplit(documents[span["id"]]["url"] or "").hostname or documents[span["id"]]["source"]
            cut[host, texts[span["id"]][span["start"] : span["end"]]] += 1
    print(f"  lines: {sum(cut.values()):,} cut, {len(cut):,} distinct; the most frequent:")
    for (host, line), count in cut.most_common(25):
        print(f"  {count:6,}  {host}  {line[:100]!r}")


if __name__ == "__main__":
    of_books(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    for named in sys.argv[2:]:
        of_stage(named)
