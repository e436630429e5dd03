"""A run's root written through the stage contract, without engines: what `why` and the report read."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from dataeng import stage
from dataeng.document import Document, Verdict, digest, to_batch, to_dropped, to_row
from dataeng.recipe import Table
from dataeng.stage import Attempt, Manifest

SECRET = "jane.secret@example.org"  # stands in texts that extraction kept
MARKUP = "<script>alert('harm')</script>"


class Any_(Table):
    """A config with one field, whatever the step."""

    version: ClassVar[int] = 1
    note: str = "synthetic"


def publish(
    root: Path,
    name: str,
    rows: list[dict[str, Any]] | None = None,
    inputs: tuple[str, ...] = (),
    counts: dict[str, int] | None = None,
    details: dict[str, Any] | None = None,
    parts: int = 2,
) -> Manifest:
    """Publish a stage with these rows (in ``parts`` files a table) by the contract."""
    manifests = {one: stage.read_manifest(str(root / one)) for one in inputs}
    entries = [{"stage": one, "hash": m[0].tables["kept"].hash if m else ""} for one, m in manifests.items()]
    found = stage.read_manifest(str(root / name))
    print_of = digest(name, str(len(rows or [])))
    attempt = Attempt(name, str(root / name), Any_(), print_of, entries, found[1] if found else None)
    facts = []
    for table in sorted({row["table"] for row in rows or []}):
        own = [row for row in rows or [] if row["table"] == table]
        for part in range(parts):
            path = Path(attempt.data_folder) / f"table={table}" / f"part-{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            batch = to_batch(own[part::parts])
            pq.write_table(pa.Table.from_batches([batch]).drop_columns(["table"]), path)
            facts.append(stage.measure(str(path)))
    split = {t: sum(f.rows for f in facts if f.table == t) for t in ("kept", "dropped")}
    counts = counts if counts is not None else {"in": sum(split.values()), **split}
    manifest = attempt.manifest(
        tables=stage.tables_of(facts, attempt),
        counts=counts,
        dropped_by=stage.dropped_by(facts),
        details=details or {},
    )
    return attempt.publish(manifest)


def document(number: int, rng: random.Random) -> Document:
    """A made-up page; its scores are drawn around usual values."""
    words = int(rng.lognormvariate(5.5, 0.8)) + 5
    scores = {
        "gopher.words": float(words),
        "gopher.mean_word_length": round(rng.gauss(4.8, 0.7), 3),
        "gopher.duplicate_lines": round(min(1.0, rng.expovariate(12)), 4),
        "language.score": round(1 - rng.expovariate(14) % 0.7, 4),
        "toxicity.score": round(rng.betavariate(0.5, 9), 4),
    }
    text = f"Page {number} about rivers and mills, see {MARKUP} & more.\n" + "The wheel turns slowly. " * 12
    return Document(
        id=digest(f"record-{number}"),
        url=f"https://docs.example.org/guide/page-{number}.html",
        source="crawl",
        date="2026-11-01T12:00:00Z",
        text=text,
        language=rng.choices(["en", "de", "fr", "ja"], [80, 8, 7, 5])[0],
        language_score=scores["language.score"],
        scores=scores,
        metadata={"title": f"Page {number}"},
        file=f"crawl-0000{number % 4}.warc.gz",
        offset=number * 1000,
        length=4000 + number,
    )


LIMITS = (
    ("language.score", "min", 0.65),
    ("gopher.words", "min", 50.0),
    ("gopher.mean_word_length", "min", 3.0),
    ("gopher.mean_word_length", "max", 6.0),
    ("gopher.duplicate_lines", "max", 0.3),
    ("toxicity.score", "max", 0.35),
)


def verdict(scores: dict[str, float]) -> Verdict:
    """The first rule that fails."""
    for score, bound, threshold in LIMITS:
        value = scores[score]
        if (value < threshold) if bound == "min" else (value > threshold):
            return Verdict(False, f"{score}.{bound}", value, threshold, bound)  # type: ignore[arg-type]
    return Verdict(True)


def _extracted(documents: list[Document]) -> list[dict[str, Any]]:
    rows = []
    for document_ in documents:
        bare = {"scores": {}, "language": None, "language_score": None, "text": f"Write to {SECRET}!"}
        plain = Document(**{name: bare.get(name, getattr(document_, name)) for name in Document.__slots__})
        if document_.offset and document_.offset % 37_000 == 0:
            plain.text = None
            rows.append(to_dropped(plain, "extract", Verdict(False, "http_error", 404.0, 400.0, "max")))
        elif document_.offset and document_.offset % 53_000 == 0:
            plain.text = None
            rows.append(to_dropped(plain, "extract", Verdict(False, "empty")))
        else:
            rows.append(to_row(plain))
    return rows


def data(root: Path, size: int = 400, seed: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Publish extract … publish over ``size`` documents; the rows of each stage by its name."""
    rng = random.Random(seed)
    documents = {d.id: d for d in (document(number, rng) for number in range(size))}
    rows = {"extract": _extracted(list(documents.values()))}

    def left(name: str) -> list[Document]:
        return [documents[row["id"]] for row in rows[name] if row["table"] == "kept"]

    rows["filter"] = []
    for each in left("extract"):
        found = verdict(each.scores)
        rows["filter"].append(to_row(each) if found.keep else to_dropped(each, "filter", found))
    rows["decontaminate"] = []
    for number, each in enumerate(left("filter")):
        share = Verdict(False, "contaminated", 0.9, 0.5, "max")
        more = {"matched": f"gsm8k#{number}", "similarity": 0.9}
        bad = number % 41 == 7
        rows["decontaminate"].append(to_dropped(each, "decontaminate", share, **more) if bad else to_row(each))
    entered = left("decontaminate")
    rows["dedup"] = []
    for number, each in enumerate(entered):
        group = number // 25 * 25
        if 0 < number - group < 2 + group // 50:
            near = rng.random() < 0.7
            more = {"duplicate_of": entered[group].id, "matched": entered[number - 1].id}
            more["similarity"] = round(rng.uniform(0.8, 1), 4) if near else 1.0
            why = Verdict(False, "near_duplicate" if near else "exact_duplicate")
            rows["dedup"].append(to_dropped(each, "dedup", why, **more))
        else:
            rows["dedup"].append(to_row(each))
    survivors = left("dedup")
    tables = [
        "test" if int(d.id[:2], 16) < 8 else "validation" if int(d.id[:2], 16) < 16 else "train" for d in survivors
    ]
    rows["publish"] = [to_row(d, table) for d, table in zip(survivors, tables, strict=True)]
    before: tuple[str, ...] = ()
    for name, own in rows.items():
        counts = {"in": len(own), "kept": len(own), "dropped": 0} if name == "publish" else None
        publish(root, name, own, before, counts)
        before = (name,)
    return rows


def _curve(root: Path, name: str, steps: int, first: float, last: float, key: str = "loss") -> None:
    rng = random.Random(name)
    lines = []
    for step in range(1, steps + 1):
        mean = last + (first - last) * math.exp(-5 * step / steps)
        line = {"step": step, key: round(mean + rng.gauss(0, 0.06), 4), "learning_rate": 3e-3 * (1 - step / steps)}
        if step % max(1, steps // 8) == 0:
            line["validation_loss"] = round(mean + 0.05, 4)
        lines.append(json.dumps(line))
    (root / name).mkdir(parents=True, exist_ok=True)
    (root / name / "metrics.jsonl").write_text("\n".join(lines) + "\n")


KINDS = ("compare", "copy", "count", "reverse", "sum", "upper")


def _tasks(mean: float, rng: random.Random) -> dict[str, Any]:
    kinds = {kind: round(min(1.0, max(0.0, mean + rng.gauss(0, 0.15 * (mean > 0)))), 3) for kind in KINDS}
    return {"accuracy": mean, "error": 0.019 if mean else 0.0, "by_kind": kinds}


def training(root: Path) -> None:
    """Publish tokens, the training steps with their metrics, a sweep and an evaluation."""
    rng = random.Random(5)
    sums = {"bytes": 9000, "words": 1530, "tokens": 2142, "tokens_per_word": 1.4, "bytes_per_token": 4.2017}
    details = {"fertility": {"en": sums}}
    publish(root, "tokenizer", inputs=("publish",), counts={"vocabulary": 2048}, details=details)
    counts = {"train_documents": 640, "train_tokens": 1_160_000, "validation_documents": 13}
    counts |= {"validation_tokens": 31_000, "test_documents": 12, "test_tokens": 29_500}
    publish(root, "tokens", inputs=("publish", "tokenizer"), counts=counts)
    trials = [
        {
            "config": {"pretrain.learning_rate": rate},
            "metric": round(4.1 + abs(math.log(rate / 3e-3)) / 4, 4),
            "steps": n,
        }
        for rate, n in ((5e-4, 20), (3e-3, 40), (9e-3, 40), (2e-2, 10))
    ]
    best = {"config": {"pretrain.learning_rate": 3e-3}, "metric": 4.1}
    details = {"metric": "validation_loss", "target": "pretrain", "trials": trials, "best": best}
    publish(root, "tune", inputs=("tokens",), details=details)
    steps = {"pretrain": (300, 7.6, 3.2), "sft": (470, 3.0, 0.3), "reward": (120, 0.69, 0.2), "grpo": (60, 0.02, 0.01)}
    before = "tokens"
    for name, (count, first, last) in steps.items():
        _curve(root, name, count, first, last)
        publish(root, name, inputs=(before,), counts={"steps": count})
        before = name
    models = {}
    for name, greedy, sampled, loss in (
        ("pretrain", 0.0, 0.0, 26.1),
        ("sft", 0.582, 0.428, 31.0),
        ("grpo", 0.585, 0.506, 31.4),
    ):
        samples = [
            {
                "kind": "copy",
                "prompt": "Copy: apple river",
                "expected": "apple river",
                "output": "apple river",
                "correct": True,
            },
            {
                "kind": "sum",
                "prompt": "3 + 4 = ?",
                "expected": "7",
                "output": f"{MARKUP} {name}",
                "correct": False,
                "sampled": "8",
            },
        ]
        tasks = {"greedy": _tasks(greedy, rng), "sampled": _tasks(sampled, rng)}
        models[name] = {"perplexity": loss, "tasks": tasks, "samples": samples}
        if name == "grpo":
            models[name]["difference"] = {"sampled": {"mean": 0.078, "error": 0.015}}
    publish(root, "evaluate", inputs=("pretrain", "sft", "grpo"), details={"models": models})
