"""The card of a published corpus: README.md beside its manifest, with the front matter that dataset hubs read.

It follows from the manifests alone, so whoever publishes the same corpus writes the same card.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataeng import runs, stage, storage
from dataeng.publish import Config
from dataeng.runs import Published
from dataeng.stage import Manifest

NAME = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
_COLUMNS = (
    ("id", "stable identifier: a hash of the capture's record id, or of the text's source and own id"),
    ("url, date, source", "where it was found, when, and the name of the source"),
    ("text", "the main text, UTF-8, Unicode NFC, personal data masked where that rule ran"),
    ("language, language_score", "ISO 639 code and the model's probability"),
    ("scores", "what each rule scored (a map of names to numbers)"),
    ("metadata", "title, author, licence, declared language, extraction path, cluster (a map of strings)"),
    ("file, offset, length", "the capture that it came from"),
)


def size_category(documents: int) -> str:
    """The hub's name for a number of rows."""
    return next((name for most, name in (*_SIZES, *_LARGER) if documents < most), "n>1B")


def _front_matter(manifest: Manifest, config: Config) -> list[str]:
    languages = [code for code in manifest.details.get("languages", {}) if len(code) in (2, 3)]
    lines = ["---", f"license: {config.licence}", "task_categories:", "- text-generation"]
    lines += ["language:", *(f"- {code}" for code in languages)] if languages else []
    lines += ["size_categories:", f"- {size_category(manifest.counts.get('kept', 0))}"]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for split in config.kept_tables:
        files = manifest.tables[split].files if split in manifest.tables else []
        lines += [f"  - split: {split}", "    path:", *(f"    - {file.path}" for file in files)] if files else []
    return [*lines, "---", ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*head], ["---"] * len(head), *cells)] + [""]


def _dropped(stages: Sequence[Published]) -> list[list[Any]]:
    return [
        [one.name, rule, count]
        for one in stages
        for rule, count in sorted(one.manifest.dropped_by.items(), key=lambda item: (-item[1], item[0]))
    ]


def _limits(stages: Sequence[Published]) -> list[str]:
    ran = {rule for one in stages for rule in one.manifest.config.get("rules", [])}
    found = ["The language is a model's guess; short and mixed texts are often wrong."]
    if "toxicity" in ran or "quality" in ran:
        found.append("The classifiers that ship with the tool know English; other languages pass them unjudged.")
    if "personal_data" in ran:
        found.append("Personal data is masked by patterns and checksums: names and addresses of people remain.")
    else:
        found.append("Personal data was not masked.")
    if any(one.manifest.details.get("nondeterministic") or one.manifest.nondeterministic for one in stages):
        found.append("Some pages met a limit of time or memory and are missing; another run may have them.")
    if not any(one.name == "decontaminate" for one in stages):
        found.append("It was not checked against evaluation sets.")
    return found


def text(root: str, manifest: Manifest, config: Config, stages: Sequence[Published]) -> str:
    """The card of ``manifest`` (step `publish` under ``root``); ``stages`` are those that led to it, in order."""
    details, name = manifest.details, root.rstrip("/").rpartition("/")[2] or "corpus"
    lines = [*_front_matter(manifest, config), f"# {name}", ""]
    lines += [f"{manifest.counts.get('kept', 0):,} documents, {details.get('bytes', 0):,} bytes of text.", ""]
    lines += _table(["split", "documents"], [[s, manifest.tables[s].rows] for s in config.kept_tables])
    sources = details.get("sources", {})
    rows = [[source, facts["documents"], facts["tokens"], facts.get("asked", "")] for source, facts in sources.items()]
    lines += ["## Sources", "", *_table(["source", "documents", "tokens (estimated)", "tokens asked for"], rows)]
    languages = details.get("languages", {})
    rows = [[code, facts["documents"], facts["tokens"]] for code, facts in languages.items()]
    lines += ["## Languages", "", *_table(["language", "documents", "tokens (estimated)"], rows)]
    lines += ["## What was left out", "", *_table(["step", "rule", "documents"], _dropped(stages))]
    lines += ["## Columns", "", *_table(["column", "what it holds"], _COLUMNS)]
    lines += ["## Known limits", "", *(f"- {limit}" for limit in _limits(stages)), ""]
    return "\n".join(lines)


def write(root: str, manifest: Manifest, config: Config) -> str:
    """Write the card beside the manifest where it is missing or another; its path."""
    stages = [one for one in runs.published(root) if one.document_tables() or one.manifest.dropped_by]
    path = storage.join(stage.folder_of(root, manifest.stage), NAME)
    data = text(root, manifest, config, stages).encode()
    found = storage.read_tagged(path)
    if found is None or found[0] != data:
        storage.write_bytes(path, data)
    return path
