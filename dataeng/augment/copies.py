"""The copies of documents: which are made, and the rows that they and the attempts at them become."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from dataeng.augment import Config, Method, Rewriting, Synonyms
from dataeng.augment import synonyms as words
from dataeng.augment.endpoint import Client
from dataeng.augment.rewrite import Ask, rewrite
from dataeng.cli import Failure
from dataeng.dedup.normalise import exact_hash
from dataeng.document import ROW, Document, Verdict, digest, from_row, to_batch, to_row
from dataeng.publish import Config as Publish
from dataeng.publish.mixture import cluster_of, draw, split_of

ORIGIN, METHOD = "origin", "augmentation"  # keys of a copy's metadata


@dataclass(frozen=True)
class Work:
    """All that a task is told: the step's config, publish's (for splits), and what stands outside the recipe."""

    config: Config
    publish: Publish
    seed: int
    dictionary: words.Words
    answers: str  # the folder of kept answers
    key: str | None = field(repr=False)  # the API key


def wanted(document: Document, work: Work) -> Iterator[tuple[str, Method]]:
    """The methods by which a document is copied: none for what is not trained on, or is a copy itself."""
    cluster = cluster_of(document)
    if not document.text or ORIGIN in document.metadata or split_of(cluster, work.seed, work.publish) != "train":
        return
    for name, method in work.config.methods().items():
        fits = not isinstance(method, Rewriting) or len(document.text) <= method.most_characters
        if fits and document.language in method.languages and draw(work.seed, name, cluster) < method.documents:
            yield name, method


def _copy(document: Document, name: str, number: int, text: str | None, facts: Mapping[str, object]) -> Document:
    about = {f"{METHOD}.{key}": str(value) for key, value in facts.items() if value}
    more = {ORIGIN: document.id, METHOD: name, "cluster": cluster_of(document)}
    return replace(
        document,
        id=digest(document.id, name, str(number)),
        source=f"{document.source}+{name}",
        text=text,
        metadata=document.metadata | about | more,
    )


def _failed(document: Document, name: str, number: int, reason: str, facts: Mapping[str, object]) -> dict[str, Any]:
    copy = _copy(document, name, number, None, facts)
    why = Verdict(False, f"{name}.{reason}")
    return to_row(copy, "failed", stage="augment", rule=why.rule)


def _attempt(
    document: Document, method: Method, name: str, number: int, work: Work, ask: Ask | None
) -> tuple[str | None, str, dict[str, object]]:
    """A copy's text or None, the reason why there is none, and what is recorded of the attempt."""
    text = document.text or ""
    if isinstance(method, Synonyms):
        new, count = words.replace(text, work.dictionary, method.share, f"{work.seed}\0{document.id}\0{number}")
        return (new if count else None), "unchanged", {"replaced": count}
    if ask is None or work.config.endpoint is None or not isinstance(method, Rewriting):
        raise ValueError(f"{name}: has no endpoint")
    seed = int(draw(work.seed, f"{name}.{number}", "") * (1 << 31))
    found = rewrite(text, method, document.language or "", seed, ask)
    facts = {"model": work.config.endpoint.model, "requests": found.requests}
    facts |= {"unanswered": sum(found.unanswered.values())}
    facts |= {"prompt_tokens": found.prompt_tokens, "completion_tokens": found.completion_tokens}
    reason = max(sorted(found.unanswered), key=found.unanswered.__getitem__, default="unchanged")
    whole = found.changed and found.changed >= method.changed * found.asked
    return (found.text if whole else None), reason, facts


def rows_of(document: Document, work: Work, ask: Ask | None) -> list[dict[str, Any]]:
    """Rows of table `augmented` for a document's copies, of `failed` for those that did not come about."""
    rows, known = [], {exact_hash(document.text or "")}
    for name, method in wanted(document, work):
        for number in range(method.copies):
            text, reason, facts = _attempt(document, method, name, number, work, ask)
            text = None if text is None else unicodedata.normalize("NFC", text)
            if text is not None and exact_hash(text) in known:
                text, reason = None, "unchanged"
            if text is None:
                rows.append(_failed(document, name, number, reason, facts))
                continue
            known.add(exact_hash(text))
            rows.append(to_row(_copy(document, name, number, text, facts), "augmented"))
    return rows


def copies(batches: Iterable[pa.RecordBatch], work: Work) -> Iterator[pa.RecordBatch]:
    """The rows of tables `augmented` and `failed`, hashed; several documents wait for answers at a time."""
    endpoint = work.config.endpoint
    client = Client(endpoint, work.answers, work.key) if endpoint else None
    with ThreadPoolExecutor(endpoint.parallel if endpoint else 1) as pool:
        for batch in batches:
            documents = [from_row(row) for row in batch.to_pylist()]
            ask = client.ask if client else None
            found = pool.map(lambda document, ask=ask: rows_of(document, work, ask), documents)
            yield to_batch([row for rows in found for row in rows], ROW)


def checked(facts: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """By method, for the manifest: copies, failures by reason, requests and tokens.

    ``facts`` have ``rows`` and sums by ``method`` and ``rule``. Raises Failure where no request was answered.
    """
    found: dict[str, dict[str, Any]] = {name: {"copies": 0, "failed": {}} for name in config.methods()}
    for row in sorted(facts, key=lambda row: (row["method"], row["rule"] or "")):
        method = found[row["method"]]
        if row["rule"] is None:
            method["copies"] += row["rows"]
        else:
            method["failed"][row["rule"].partition(".")[2]] = row["rows"]
        for name in (name for name in row if name not in ("method", "rule", "rows") and row[name]):
            method[name] = method.get(name, 0) + row[name]
    asked = sum(method.get("requests", 0) for method in found.values())
    if asked and asked == sum(method.get("unanswered", 0) for method in found.values()):
        reasons = sorted({reason for method in found.values() for reason in method["failed"]})
        url = config.endpoint.base_url if config.endpoint else ""
        raise Failure(f"augment: none of {asked:,} requests to {url} was answered ({', '.join(reasons)})")
    return {"methods": found}
