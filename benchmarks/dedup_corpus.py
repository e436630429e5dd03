"""Synthetic corpora whose near-duplicates are known: a plan, the documents of it, and what a run made of it.

A document has 200 words. Cluster sizes follow a power law (share of size s: s^-2.5, at most a hundredth of the
corpus; about half of all documents are copies). The first of a cluster is its origin, each other one the origin
with one run of 0 to 11 words drawn anew: its Jaccard with the origin is at least 0.857 in shingles of five words.

A tenth of all documents, by whole clusters, begin with one notice of 40 words. It is searched: of four million
drawn sentences of five words, the notice strings together those with the least value in each of the eight
permutations of band 0, so that its shingles hold all minima of that band. Its documents share that band's hash
and, but for their own clusters, no more than 36 shingles in 196 (Jaccard 0.10).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataeng import stage
from dataeng.dedup import Config
from dataeng.dedup.hashing import hash_shingles
from dataeng.dedup.minhash import permutations
from dataeng.dedup.normalise import word_hashes
from dataeng.document import Document, to_batch, to_row
from dataeng.recipe import Table
from dataeng.stage import Attempt, Manifest

WORDS, SHINGLE, LONGEST_EDIT, NOTICE = 200, 5, 11, 40
POWER, VOCABULARY, SEARCHED = 2.5, 20_000, 4_000_000
FILE_DOCUMENTS = 25_000
STAGE = "synthetic"


@dataclass(frozen=True)
class Plan:
    """For each document its cluster, its place in it (0 is the origin), and whether it bears the notice."""

    cluster: np.ndarray
    member: np.ndarray
    noticed: np.ndarray

    @property
    def copies(self) -> int:
        """Documents that ought to go: all but one of each cluster."""
        return int((self.member > 0).sum())


def plan(documents: int, seed: int = 0) -> Plan:
    """Who is a copy of whom, in an order without order."""
    random = np.random.default_rng(seed)
    sizes = np.arange(1, max(2, documents // 100) + 1)
    shares = sizes**-POWER
    drawn = random.choice(sizes, documents, p=shares / shares.sum())
    last = int(np.searchsorted(np.cumsum(drawn), documents))
    drawn = drawn[: last + 1]
    drawn[last] -= drawn.sum() - documents
    cluster = np.repeat(np.arange(drawn.size), drawn)
    member = np.arange(documents) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    order = random.permutation(drawn.size)
    bearing = np.zeros(drawn.size, bool)
    bearing[order[: int(np.searchsorted(np.cumsum(drawn[order]), documents // 10)) + 1]] = True
    shuffled = random.permutation(documents)
    return Plan(cluster[shuffled], member[shuffled], bearing[cluster[shuffled]])


def identifier(number: int) -> str:
    """The id of a document, by its number in the plan."""
    return hashlib.blake2b(number.to_bytes(8, "little"), digest_size=16).hexdigest()


@cache
def vocabulary() -> tuple[str, ...]:
    """Words of four to nine letters, all different."""
    letters = np.random.default_rng(1).integers(97, 123, (2 * VOCABULARY, 9), dtype=np.uint8)
    words = dict.fromkeys(bytes(row[: 4 + k % 6]).decode() for k, row in enumerate(letters))
    return tuple(words)[:VOCABULARY]


@cache
def notice() -> tuple[int, ...]:
    """The notice, as places in the vocabulary."""
    hashes = word_hashes(" ".join(vocabulary()))
    config = Config()
    drawn = np.random.default_rng(2).integers(0, VOCABULARY, SEARCHED + SHINGLE - 1)
    values = hash_shingles(hashes[drawn], SHINGLE)
    a, b = permutations(config.hash_seed, config.bands * config.rows)
    starts = [int(np.argmin(values * a[row] + b[row])) for row in range(config.rows)]
    return tuple(int(word) for start in starts for word in drawn[start : start + SHINGLE])


def _drawn(random: np.random.Generator, count: int) -> np.ndarray:
    return (VOCABULARY * random.random(count) ** 2).astype(np.int64)  # common words and rare ones


def text(cluster: int, member: int, noticed: bool, seed: int = 0) -> str:
    """The text of a document of the plan."""
    words = _drawn(np.random.default_rng((seed, cluster)), WORDS)
    if noticed:
        words[:NOTICE] = notice()
    if member:
        random = np.random.default_rng((seed, cluster, member))
        length = int(random.integers(0, LONGEST_EDIT + 1))
        start = int(random.integers(NOTICE, WORDS - length))
        words[start : start + length] = _drawn(random, length)
    names = vocabulary()
    return " ".join([names[word] for word in words])


def _file(path: str, first: int, part: Plan, seed: int) -> str:
    rows = []
    for place, (cluster, member, noticed) in enumerate(zip(part.cluster, part.member, part.noticed, strict=True)):
        content = text(int(cluster), int(member), bool(noticed), seed)
        document = Document(id=identifier(first + place), text=content, source=STAGE, file=path, offset=first + place)
        rows.append(to_row(document))
    pq.write_table(pa.Table.from_batches([to_batch(rows)]).drop_columns(["table"]), path, compression="zstd")
    return path


def publish(root: Path, planned: Plan, seed: int = 0, workers: int = 2) -> Manifest:
    """The plan's documents as the published stage ``synthetic``."""
    notice()  # once, before the workers fork
    attempt = Attempt(STAGE, str(root / STAGE), Table(), "0" * 32, [], None)
    folder = Path(attempt.data_folder, "table=kept")
    folder.mkdir(parents=True)
    firsts = range(0, planned.cluster.size, min(FILE_DOCUMENTS, -(-planned.cluster.size // workers)))
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        waiting = []
        for number, first in enumerate(firsts):
            cut = slice(first, first + firsts.step)
            part = Plan(planned.cluster[cut], planned.member[cut], planned.noticed[cut])
            waiting.append(pool.submit(_file, str(folder / f"part-{number:05d}.parquet"), first, part, seed))
        facts = list(pool.map(stage.measure, [job.result() for job in waiting]))
    counts = {"in": planned.cluster.size, "kept": planned.cluster.size, "dropped": 0}
    return attempt.publish(attempt.manifest(tables=stage.tables_of(facts, attempt), counts=counts))


def _numbers(ids: pa.ChunkedArray, documents: int) -> np.ndarray:
    known = pa.array([identifier(number) for number in range(documents)])
    return pc.index_in(ids, known).to_numpy()


def score(folder: str, manifest: Manifest, planned: Plan) -> dict[str, float]:
    """Recall and precision of the removals of a step ``dedup``, and the clusters of which it left nothing.

    Recall: removals of those planned (all but one of each cluster). Precision: those removed whose survivor is
    of their own cluster, of all that were removed.
    """
    paths = stage.table_paths(folder, manifest, "dropped")
    columns = ["offset", "duplicate_of"]
    tables = [pq.ParquetFile(path).read(columns=columns) for path in paths]
    dropped = pa.concat_tables(tables)
    gone = dropped["offset"].to_numpy()
    stands = _numbers(dropped["duplicate_of"].combine_chunks(), planned.cluster.size)
    right = int((planned.cluster[gone] == planned.cluster[stands]).sum())
    left = np.ones(planned.cluster.size, bool)
    left[gone] = False
    lost = np.setdiff1d(planned.cluster, planned.cluster[left]).size
    return {
        "recall": right / max(1, planned.copies),
        "precision": right / max(1, gone.size),
        "clusters_lost": lost,
    }


def jsonl(folder: Path, paths: Sequence[str], files: int) -> None:
    """Rows of Parquet files as so many JSONL files of ``id`` and ``text``, as other tools read them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = pa.concat_tables([pq.ParquetFile(path).read(columns=["id", "text"]) for path in paths])
    for number in range(files):
        with open(folder / f"{number}.jsonl", "w") as file:
            for row in rows.take(np.arange(number, rows.num_rows, files)).to_pylist():
                file.write(json.dumps(row) + "\n")
