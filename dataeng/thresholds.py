"""A rule's threshold from data: the value that keeps a wanted share, and what it would drop.

``python -m dataeng.thresholds ROOT RULE --keep 0.9`` reads the scores of the documents that the stage
`filter` kept and dropped. RULE is a bound such as ``gopher.mean_word_length.min``, or a score with one bound
alone, such as ``toxicity``. Documents that an earlier rule dropped have no score and do not count.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from dataeng import stage, storage
from dataeng.cli import UserError, run
from dataeng.extract.tidy import one_line
from dataeng.filter import Config, limits, personal_data
from dataeng.filter.bounds import Limit
from dataeng.manifest import Manifest
from dataeng.recipe import KeyProblem, build

STAGE = "filter"
USAGE = "usage: python -m dataeng.thresholds ROOT RULE --keep SHARE (0 < SHARE <= 1)"
_BATCH = 4096
_MASKING = personal_data.Config.model_validate({})
_EXAMPLES = 5
_SHOWN = 10


@dataclass
class Effect:
    """What a threshold would do: documents dropped by language and host, and the nearest on both sides."""

    kept: int = 0
    dropped: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    nearest_kept: list[tuple[float, str]] = field(default_factory=list)
    nearest_dropped: list[tuple[float, str]] = field(default_factory=list)


def filter_manifest(root: str) -> Manifest:
    """The manifest of the stage; raises UserError where it has not been published."""
    return stage.need_manifest(root, STAGE, "thresholds")


def find_rule(manifest: Manifest, name: str) -> Limit:
    """The bound of this name in the stage's config; raises UserError, naming those there are."""
    try:
        found = limits(build(Config, STAGE, dict(manifest.config)))
    except (KeyProblem, ValidationError) as error:
        raise UserError(f"{STAGE}: was published with a config that this version does not know ({error})") from None
    named = {f"{limit.score}.{limit.bound}": limit for limit in found}
    short = [limit for limit in found if limit.score == name]
    if name in named or len(short) == 1:
        return named.get(name) or short[0]
    raise UserError(f"{name}: no such rule in the stage {STAGE}; its rules: {', '.join(sorted(named)) or 'none'}")


def scored(
    root: str, manifest: Manifest, score: str, more: Sequence[str] = ()
) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """For each batch of documents: their values of a score (float64), and of those documents the columns ``more``."""
    folder = stage.folder_of(root, STAGE)
    for table in ("kept", "dropped"):
        for path in stage.table_paths(folder, manifest, table):
            system, inner = storage.parquet_filesystem(path)
            with system.open_input_file(inner) as source:
                for batch in pq.ParquetFile(source).iter_batches(_BATCH, columns=["scores", *more]):
                    rows, values = _values(batch.column("scores"), score)
                    yield values, pa.table({name: batch.column(name).take(pa.array(rows)) for name in more})


def _values(scores: pa.MapArray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a map column that have a key, and its values there."""
    offsets = scores.offsets.to_numpy()
    places = offsets[0] + np.flatnonzero(pc.equal(_slice(scores.keys, offsets), name).to_numpy(zero_copy_only=False))
    rows = np.searchsorted(offsets, places, side="right") - 1
    return rows, scores.items.take(pa.array(places)).to_numpy(zero_copy_only=False)


def _slice(values: pa.Array, offsets: np.ndarray) -> pa.Array:
    return values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def choose(values: np.ndarray, bound: str, keep: float) -> float:
    """The strictest threshold that keeps at least the share ``keep`` of the values (float64, not empty)."""
    ordered = np.sort(values) if bound == "max" else -np.sort(-values)
    return float(ordered[max(int(np.ceil(keep * len(values) - 1e-9)), 1) - 1])


def drops(values: np.ndarray, bound: str, threshold: float) -> np.ndarray:
    """Which values (float64) the bound drops: bool."""
    return values < threshold if bound == "min" else values > threshold


def _host(url: str | None) -> str:
    try:
        return one_line(urlsplit(url or "").hostname or "") or "no host"
    except ValueError:
        return "no host"


def _shown(name: str) -> str:
    """An address or id as it is printed: personal data masked, no control characters."""
    return one_line(personal_data.mask_url(name, _MASKING) if ":" in name else name)


def effect(root: str, manifest: Manifest, limit: Limit, threshold: float) -> Effect:
    """What the threshold would do to the documents of the stage, in one pass over them."""
    found = Effect()
    nearest: dict[bool, list[tuple[float, float, str]]] = {True: [], False: []}
    for values, rows in scored(root, manifest, limit.score, ["language", "url", "id"]):
        gone = drops(values, limit.bound, threshold)
        found.dropped += int(gone.sum())
        found.kept += len(values) - int(gone.sum())
        columns = [rows.column(name).to_pylist() for name in ("language", "url", "id")]
        for value, out, language, url, identifier in zip(values.tolist(), gone.tolist(), *columns, strict=True):
            if out:
                found.languages[language or "unknown"] += 1
                found.hosts[_host(url)] += 1
            nearest[out].append((abs(value - threshold), value, url or identifier))
        nearest = {side: heapq.nsmallest(_EXAMPLES, listed) for side, listed in nearest.items()}
    found.nearest_dropped = [(value, _shown(name)) for _, value, name in nearest[True]]
    found.nearest_kept = [(value, _shown(name)) for _, value, name in nearest[False]]
    return found


def _counts(title: str, counted: Counter[str]) -> str:
    listed = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"  by {title}: " + ", ".join(f"{name} {number:,}" for name, number in listed[:_SHOWN]) + more


def describe(limit: Limit, keep: float, threshold: float, values: np.ndarray, found: Effect) -> str:
    """The answer in words, its first line with the value."""
    total = len(values)
    now = 1 - drops(values, limit.bound, limit.threshold).mean()
    lines = [
        f"{limit.score}.{limit.bound} = {threshold!r}",
        f"  keeps {found.kept / total:.4f} of the {total:,} documents that have the score (wanted {keep:g}); "
        f"the run's own {limit.threshold:g} keeps {now:.4f}",
        f"  drops {found.dropped:,}",
    ]
    if found.dropped:
        lines += [_counts("language", found.languages), _counts("host", found.hosts)]
    for title, listed in (("dropped", found.nearest_dropped), ("kept", found.nearest_kept)):
        lines += [f"  just {title}:"] * bool(listed) + [f"    {value!r}  {name}" for value, name in listed]
    return "\n".join(lines)


def answer(root: str, rule: str, keep: float) -> str:
    """What is printed; raises UserError for an unknown rule and where no document has its score."""
    root = storage.plain(root)
    manifest = filter_manifest(root)
    limit = find_rule(manifest, rule)
    parts = [values for values, _ in scored(root, manifest, limit.score)]
    values = np.concatenate([np.zeros(0), *parts])
    if not len(values):
        raise UserError(f"{rule}: no document of {stage.folder_of(root, STAGE)} has this score")

    threshold = choose(values, limit.bound, keep)
    return describe(limit, keep, threshold, values, effect(root, manifest, limit, threshold))


def _arguments(arguments: Sequence[str]) -> tuple[str, str, float]:
    if len(arguments) != 4 or arguments[2] != "--keep":
        raise UserError(USAGE)
    try:
        keep = float(arguments[3])
    except ValueError:
        keep = 0.0
    if not 0 < keep <= 1:
        raise UserError(f"--keep {arguments[3]}: must be a share above 0 and at most 1; {USAGE}")
    return arguments[0], arguments[1], keep


def _main(arguments: Sequence[str]) -> None:
    print(answer(*_arguments(arguments)))


if __name__ == "__main__":
    run(_main)
