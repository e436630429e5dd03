"""Check a labelled crawl's run against the floors: what was lost, missed, wrongly dropped or left in.

    python benchmarks/crawl_labels.py [RECIPE] [KEY=VALUE …]      (default: configs/labels.toml)

Runs the data pipeline first (finished stages are skipped), then joins every table with the labels on
(base name of the capture file, offset) and prints a line for each floor; exit status 1 if one is missed.
"""

from __future__ import annotations

import collections
import difflib
import gzip
import hashlib
import json
import math
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from dataeng import stage, storage
from dataeng.dedup.minhash import shingles
from dataeng.recipe import load

REPO = Path(__file__).parent.parent
GARBAGE = ("not_html", "binary_as_html", "http_error", "empty")
missed: list[str] = []


def say(what: str, found: str, holds: bool) -> None:
    print(f"{'ok  ' if holds else 'MISS'} {what}: {found}", flush=True)
    if not holds:
        missed.append(what)


class Run:
    """All rows of a run's stages, and its labels by (base name, offset)."""

    def __init__(self, root: str, labels: Path) -> None:
        self.root = root
        with gzip.open(labels, "rt", encoding="utf-8") as lines:
            self.labels = {(d["file"], d["offset"]): d for d in map(json.loads, lines)}
        self.manifests = {
            s: stage.need_manifest(root, s, "this check")
            for s in ("extract", "filter", "decontaminate", "dedup", "publish")
        }
        self.rows: dict[tuple[str, str], list[dict]] = {}
        for name, manifest in self.manifests.items():
            for table in manifest.tables:
                if table not in ("captures", "signatures"):
                    self.rows[name, table] = self.read(name, table)

    def read(self, name: str, table: str) -> list[dict]:
        rows = []
        for path in stage.table_paths(storage.join(self.root, name), self.manifests[name], table):
            rows += pq.ParquetFile(path).read().to_pylist()
        for row in rows:
            if row.get("file") is not None:
                row["label"] = self.labels.get((Path(row["file"]).name, row["offset"]))
                row["kind"] = row["label"]["kind"] if row["label"] else None
                row["clean"] = row["kind"] == "page" and not row["label"]["damaged"]
        return rows

    def published(self) -> list[dict]:
        return [
            row for (name, table), rows in self.rows.items() if name == "publish" and table != "dropped" for row in rows
        ]


def nothing_lost(run: Run) -> None:
    seen = {(Path(r["file"]).name, r["offset"]) for t in ("kept", "dropped") for r in run.rows["extract", t]}
    lost = [key for key, label in run.labels.items() if not label["damaged"] and key not in seen]
    say("undamaged labelled records neither kept nor dropped by extract", f"{len(lost)} of {len(run.labels)}", not lost)
    everything = {r["id"] for (_, t), rows in run.rows.items() if t == "dropped" for r in rows}
    everything |= {r["id"] for r in run.published()}
    gone = [r for r in run.rows["extract", "kept"] if r["id"] not in everything]
    say("extracted documents with no end in a table", str(len(gone)), not gone)


def filters(run: Run) -> None:
    clean = sum(1 for d in run.labels.values() if d["kind"] == "page" and not d["damaged"])
    kept = sum(r["clean"] for r in run.rows["filter", "kept"])
    say("clean pages that survive filter", f"{kept / clean:.4f} of {clean}", kept / clean >= 0.95)
    corpus = run.published()
    garbage = [r["kind"] for r in corpus if r["kind"] in GARBAGE]
    say("garbage pages in the corpus", str(len(garbage)), not garbage)
    ends = {d["kind"]: "not seen" for d in run.labels.values() if d["kind"].startswith("hostile")}
    for (name, table), rows in run.rows.items():
        ends |= {r["kind"]: f"{name}/{r['rule'] or table}" for r in rows if str(r.get("kind")).startswith("hostile")}
    say("hostile pages", ", ".join(f"{k[8:]} {v}" for k, v in ends.items()), "not seen" not in ends.values())
    dropped = collections.Counter(r["kind"] for r in run.rows["filter", "dropped"] if r["rule"].startswith("toxicity"))
    toxic = sum(d["kind"] == "toxic" for d in run.labels.values())
    share, loss = dropped["toxic"] / toxic, dropped["page"] / clean
    say(
        "toxic pages dropped / clean pages lost to that rule",
        f"{share:.3f} / {loss:.4f}",
        share >= 0.9 and loss <= 0.01,
    )
    rows = [r for t in ("kept", "dropped") for r in run.rows["filter", t] if r["clean"] and r["label"].get("lang")]
    right = sum(r["language"] == {"nb": "no"}.get(r["label"]["lang"], r["label"]["lang"]) for r in rows)
    say("language of labelled pages", f"{right / len(rows):.4f} of {len(rows)}", right / len(rows) >= 0.99)


def encodings(run: Run) -> None:
    by_url = {r["url"]: r["text"] for r in run.rows["extract", "kept"]}
    pages = [d for d in run.labels.values() if d["kind"] == "encoding"]
    ratios = []
    for page in pages:
        ours, theirs = by_url.get(page["url"]) or "", by_url.get(page["utf8_of"]) or ""
        ratios.append(
            difflib.SequenceMatcher(None, ours, theirs, autojunk=False).ratio()
            if len(ours) < 60_000
            else float(ours == theirs)
        )
    good = sum(ratio >= 0.999 for ratio in ratios)
    say(
        "encoding pages with a text as of their UTF-8 twin",
        f"{good} of {len(pages)} (least ratio {min(ratios):.4f})",
        good == len(pages),
    )


def exact_hash(text: str) -> str:
    return hashlib.sha256(" ".join(unicodedata.normalize("NFC", text).split()).encode()).hexdigest()


def equal_texts(run: Run) -> None:
    survivors = {r["id"] for r in run.rows["dedup", "kept"]}
    fate = {}
    for name in ("filter", "decontaminate", "dedup"):
        fate |= {r["id"]: (name, r["rule"], r["duplicate_of"]) for r in run.rows[name, "dropped"]}
    groups = collections.defaultdict(list)
    for row in run.rows["extract", "kept"]:
        groups[exact_hash(row["text"])].append(row["id"])
    bad, several = 0, [ids for ids in groups.values() if len(ids) > 1]
    for ids in several:
        kept = [i for i in ids if i in survivors]
        ends = {fate.get(i) for i in ids if i not in survivors}
        where = {e[2] if e and e[0] == "dedup" else e for e in ends}
        holds = len(kept) <= 1 and len(where) <= 1
        if len(kept) == 1:
            holds = where <= {kept[0]}
        elif ends and all(e and e[0] == "dedup" for e in ends):
            holds = len(where) == 1 and where <= survivors
        bad += not holds
    say("groups of equal text with more or other than one survivor", f"{bad} of {len(several)}", not bad)


def similar_pairs(texts: list[str], least: float) -> list[tuple[int, int, float]]:
    """All pairs of texts with an exact shingle Jaccard of at least ``least``, from one sparse product."""
    sets = [shingles(text) for text in texts]
    vocabulary, columns = np.unique(np.concatenate(sets), return_inverse=True)
    sizes = np.array([len(s) for s in sets])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    matrix = csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(texts), len(vocabulary)))
    pairs = []
    for begin in range(0, len(texts), 256):
        product = (matrix[begin : begin + 256] @ matrix.T).tocoo()
        rows, others = product.row + begin, product.col
        jaccard = product.data / (sizes[rows] + sizes[others] - product.data)
        wanted = (rows < others) & (jaccard >= least)
        pairs += zip(rows[wanted].tolist(), others[wanted].tolist(), jaccard[wanted].tolist(), strict=True)
    return pairs


def near_duplicates(run: Run) -> None:
    config = run.manifests["dedup"].config
    dropped = {r["id"]: r for r in run.rows["dedup", "dropped"]}
    by_text: dict[str, dict] = {}
    for row in sorted(run.rows["decontaminate", "kept"], key=lambda r: r["id"]):
        by_text.setdefault(exact_hash(row["text"]), row)
    rows = [r for r in by_text.values() if len(shingles(r["text"])) >= config["minimum_shingles"]]

    def survivor(row: dict) -> str:
        return dropped[row["id"]]["duplicate_of"] if row["id"] in dropped else row["id"]

    pairs = similar_pairs([r["text"] for r in rows], 0.8)
    together = np.array([survivor(rows[a]) == survivor(rows[b]) for a, b, _ in pairs])
    values = np.array([j for _, _, j in pairs])
    high = values >= 0.85
    share = together[high].mean()
    say("pairs of distinct texts at Jaccard ≥ 0.85 in one cluster", f"{share:.4f} of {high.sum()}", share >= 0.97)
    chance = 1 - (1 - values**8) ** 14
    z = (together.sum() - chance.sum()) / math.sqrt((chance * (1 - chance)).sum())
    say(
        "pairs at Jaccard ≥ 0.80 together, against 1 − (1 − J⁸)¹⁴",
        f"{together.mean():.4f} of {len(pairs)}, expected {chance.mean():.4f} ({z:+.1f} standard errors)",
        z >= -3,
    )
    near = [r for r in dropped.values() if r["rule"] == "near_duplicate"]
    low = [r for r in near if r["similarity"] < config["threshold"]]
    say("near-duplicates removed below the threshold", f"{len(low)} of {len(near)}", not low)


def contamination(run: Run) -> None:
    dropped = [r for r in run.rows["decontaminate", "dropped"]]
    found = sum(r["kind"] == "contaminated" for r in dropped)
    wanted = sum(d["kind"] == "contaminated" for d in run.labels.values())
    lost = [r for r in dropped if r["kind"] != "contaminated" and r["kind"] != "exact_duplicate"]
    say("contaminated pages dropped", f"{found} of {wanted}", found == wanted)
    pages = {i: r for i, r in enumerate(run.rows["filter", "kept"])}
    texts = [r["text"] for r in pages.values()]
    gone = {r["id"] for r in dropped}
    twins = collections.defaultdict(list)
    for a, b, jaccard in similar_pairs(texts, 0.5):
        for one, other in ((a, b), (b, a)):
            if pages[one]["kind"] == "contaminated" and pages[other]["kind"] != "contaminated":
                twins[one].append((jaccard, pages[other]["id"]))
    ids = {max(found)[1] for found in twins.values()}
    say(
        "other pages dropped as contaminated; clean twins dropped",
        f"{len(lost)}; {len(ids & gone)} of {len(ids)}",
        not lost and not ids & gone,
    )


def personal_data(run: Run) -> None:
    needles = [(d[k], k) for d in run.labels.values() if d["kind"] == "pii" for k in ("email", "ip", "phone")]
    tables = {"corpus": run.published()}
    tables |= {f"{name}/dropped": rows for (name, table), rows in run.rows.items() if table == "dropped"}
    left = collections.Counter()
    for name, rows in tables.items():
        text = "\n".join(f"{r['text']} {r['url']} {r['metadata']} {r['matched']}" for r in rows)
        left.update(f"{k} in {name}" for needle, k in needles if needle in text)
    report = Path(run.root, "report.html")
    if report.exists():
        page = report.read_text(encoding="utf-8")
        left.update(f"{k} in report" for needle, k in needles if needle in page)
    say(
        "injected personal data left",
        ", ".join(f"{n} {k}" for k, n in left.items()) or f"0 of {len(needles)}",
        not left,
    )


def main() -> None:
    arguments = sys.argv[1:] or ["configs/labels.toml"]
    if "=" in arguments[0]:
        arguments = ["configs/labels.toml", *arguments]
    recipe = load(arguments)
    labels = next(
        (
            p
            for e in recipe.tables["extract"]["input"]
            if (p := Path(storage.fixed_part(e), "labels.jsonl.gz")).exists()
        ),
        None,
    )
    if labels is None:
        sys.exit("error: no labels.jsonl.gz beside the captures that extract.input names")
    begin = time.monotonic()
    subprocess.run([sys.executable, REPO / "spark_jobs/pipeline.py", *arguments], check=True)
    seconds = time.monotonic() - begin
    run = Run(recipe.root, labels)
    fresh = seconds > 0.5 * sum(m.seconds for m in run.manifests.values())
    say("pipeline, start-up included", f"{seconds:.0f} s" if fresh else "done earlier", seconds <= 240)
    for check in (nothing_lost, filters, encodings, equal_texts, near_duplicates, contamination, personal_data):
        check(run)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
