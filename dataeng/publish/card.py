"""The card of a published corpus: README.md beside its manifest, with the front matter that dataset hubs read.

It follows from the manifests alone, so whoever publishes the same corpus writes the same card.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from dataeng import recipe, runs, stage, storage
from dataeng.document import DOCUMENT
from dataeng.publish import Config, mixture
from dataeng.runs import Published
from dataeng.stage import Manifest

NAME = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGER = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))
_TYPES = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64"}
_DECIDING = ("filter", "decontaminate", "dedup", "passages", "semantic", "augment", "publish")  # steps
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


def _front_matter(name: str, manifest: Manifest, config: Config) -> list[str]:
    """The YAML that hubs and `datasets` read. The latter (5.2) knows no map columns: its list leaves them out."""
    languages = [code for code in manifest.details.get("languages", {}) if re.fullmatch("[a-z]{2,3}", code)]
    lines = ["---", f"pretty_name: {json.dumps(name)}", f"license: {config.licence}"]
    lines += ["language:", *(f"- {json.dumps(code)}" for code in languages)] if languages else []  # no: false in YAML
    lines += [f"multilinguality:\n- {'multi' if len(languages) > 1 else 'mono'}lingual"] if languages else []
    lines += ["task_categories:", "- text-generation"]
    lines += ["size_categories:", f"- {size_category(manifest.counts.get('kept', 0))}"]
    columns = {field.name: _TYPES[field.type] for field in mixture.schema_of(config) if field.type in _TYPES}
    columns = {column: kind for column, kind in columns.items() if column in DOCUMENT.names or column in config.columns}
    lines += ["dataset_info:", "- config_name: default", "  features:"]
    lines += [f"  - name: {column}\n    dtype: {kind}" for column, kind in columns.items()]
    lines += ["configs:", "- config_name: default", "  columns:", *(f"  - {column}" for column in columns)]
    lines += ["  data_files:"]
    for split in config.kept_tables:
        files = manifest.tables[split].files if split in manifest.tables else []
        lines += [f"  - split: {split}", "    path:", *(f"    - {file.path}" for file in files)] if files else []
    return [*lines, "---", ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in ([*head], ["---"] * len(head), *cells)] + [""]


def _short(one: Published) -> str:
    """A stage's name; of one elsewhere the last two parts of its path, as where it stands is nobody's business."""
    return "/".join(one.name.rstrip("/").split("/")[-2:])


def _dropped(stages: Sequence[Published]) -> list[list[Any]]:
    return [
        [_short(one), rule, count]
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
    if not any(one.manifest.stage == "decontaminate" for one in stages):
        found.append("It was not checked against evaluation sets.")
    if any(one.manifest.stage == "augment" for one in stages):
        found.append(
            "Documents whose metadata name an `origin` are copies of others, changed by a dictionary or a model:"
        )
        found[-1] += " no filter, decontamination or deduplication saw them, and their scores are their origin's."
    return found


def _parameters(stages: Sequence[Published]) -> list[list[Any]]:
    """Step, key and value of all that decided what each step kept; no paths, nothing that only says how it ran."""
    rows: list[list[Any]] = []
    for one in (one for one in stages if one.manifest.stage in _DECIDING):
        for key, value in _results(one):
            rule = key.partition(".")[0]
            unused = "rules" in one.manifest.config and rule not in one.manifest.config["rules"] and "." in key
            if not unused and value not in (None, [], {}, "") and rule != "input" and not key.endswith("version"):
                shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                rows.append([_short(one), key, shown[:200].replace("|", "\\|").replace("\n", " ")])
    return rows


def _results(one: Published) -> list[tuple[str, Any]]:
    """The fields that changed a step's results, as it ran; all of its config where that is of another version."""
    ran = _flat(one.manifest.config)
    try:
        config = importlib.import_module(recipe.home(one.manifest.stage) or "").Config(**one.manifest.config)
        results = dict(_flat(config.results()))
    except (ValidationError, ValueError, AttributeError, ImportError, recipe.KeyProblem):
        return ran
    return [(key, value) for key, value in ran if key in results and results[key] == value]  # of files, a number


def _flat(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Values by dotted key; tables in a list are numbered."""
    found = []
    for key, value in values.items():
        tables = isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
        inner = {str(number): item for number, item in enumerate(value)} if tables else value
        found += _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else [(before + key, value)]
    return found


def _mixture(manifest: Manifest, config: Config) -> list[str]:
    """Tables of sources, languages and, where they are something else, groups: asked for and given."""
    details = manifest.details
    rows = [[source, *_used(facts), facts.get("asked", "")] for source, facts in details.get("sources", {}).items()]
    lines = ["## Sources", "", *_table(["source", *_USED, "tokens asked for"], rows)]
    rows = [[code, *_used(facts)] for code, facts in details.get("languages", {}).items()]
    lines += ["## Languages", "", *_table(["language", *_USED], rows)]
    if config.by == ["source"]:
        return lines
    rows = [[label, *_used(facts), facts["asked"], facts["available"]] for label, facts in details["groups"].items()]
    head = ["/".join(config.by), *_USED, "tokens asked for", "tokens there"]
    return [*lines, "## Groups", "", *_table(head, rows)]


_USED = ("documents", "tokens (estimated)")


def _used(facts: dict[str, Any]) -> list[int]:
    return [facts["documents"], facts["tokens"]]


def text(root: str, manifest: Manifest, config: Config, stages: Sequence[Published]) -> str:
    """The card of ``manifest`` (step `publish` under ``root``); ``stages`` are those that led to it, in order."""
    details, name = manifest.details, root.rstrip("/").rpartition("/")[2] or "corpus"
    lines = [*_front_matter(name, manifest, config), f"# {name}", ""]
    lines += [f"{manifest.counts.get('kept', 0):,} documents, {details.get('bytes', 0):,} bytes of text.", ""]
    lines += _table(["split", "documents"], [[s, manifest.tables[s].rows] for s in config.kept_tables])
    lines += _mixture(manifest, config)
    lines += ["## What was left out", "", *_table(["step", "rule", "documents"], _dropped(stages))]
    lines += ["## How it was made", "", *_table(["step", "parameter", "value"], _parameters(stages))]
    added = [(column, f"`{place}`") for column, place in config.columns.items()]
    lines += ["## Columns", "", *_table(["column", "what it holds"], [*_COLUMNS, *added])]
    if config.order:
        side = "highest" if config.order.descending else "lowest"
        order = f"The {side} `{config.order.score}` first: files by name, and rows in them, follow that order."
        lines += ["## Order", "", order, ""]
    lines += ["## Known limits", "", *(f"- {limit}" for limit in _limits(stages)), ""]
    return "\n".join(lines)


def _chain(root: str, name: str) -> list[Published]:
    """The stage ``name`` under a root and all that it was made from, in order, through other roots as well."""
    here = {one.name: one for one in runs.published(root)}
    wanted, found = [name], set()
    while wanted:
        one = wanted.pop()
        if one in here and one not in found:
            found.add(one)
            wanted += runs.input_names(here[one])
    chain: list[Published] = []
    for stood in (stood for stood in here.values() if stood.name in found):
        if "/" in stood.name and root != (elsewhere := stood.folder.rpartition("/")[0]):
            before = _chain(elsewhere, stood.folder.rpartition("/")[2])[:-1]
            named = [Published(storage.join(elsewhere, b.name.lstrip("/")), b.folder, b.manifest) for b in before]
            chain += [b for b in named if b.folder not in {known.folder for known in chain}]
        chain.append(stood)
    return chain


def write(root: str, manifest: Manifest, config: Config) -> str:
    """Write the card beside the manifest where it is missing or another; its path."""
    stages = [one for one in _chain(root, manifest.stage) if one.document_tables() or one.manifest.dropped_by]
    path = storage.join(stage.folder_of(root, manifest.stage), NAME)
    data = text(root, manifest, config, stages).encode()
    found = storage.read_tagged(path)
    if found is None or found[0] != data:
        storage.write_bytes(path, data)
    return path
