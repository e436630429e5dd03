"""Earlier runs that a new corpus is deduplicated against (`dedup.against`): what must agree, where their tables are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.dedup import Config
from dataeng.stage import Manifest

MARK = "#"  # between an earlier run's root and the id of one of its documents


@dataclass(frozen=True)
class Earlier:
    """An earlier run: its root as the recipe names it, and the manifest of its step `dedup`."""

    root: str
    manifest: Manifest

    def paths(self, table: str) -> list[str]:
        """The full paths of a table's files."""
        return stage.table_paths(storage.join(self.root, "dedup"), self.manifest, table)


def earlier_runs(config: Config, own_root: str) -> list[Earlier]:
    """The runs that `dedup.against` names.

    Raises UserError where one is this run itself, of which nothing would be left, has not been published, has no
    signatures, or has them by other parameters.
    """
    if own := [root for root in config.against if _place(root) == _place(own_root)]:
        raise UserError(f"dedup.against: {own[0]} is this run itself: name the roots of earlier runs")
    runs = [Earlier(root, stage.need_manifest(root, "dedup", "dedup.against")) for root in config.against]
    wanted = config.parameters()
    for run in runs:
        found = run.manifest.details.get("parameters")
        if not found or "signatures" not in run.manifest.tables:
            raise UserError(f"dedup.against: {run.root}/dedup has no table of signatures: run its dedup again")
        found = {"hash_bits": 64} | found  # those published before the width could be chosen
        for key in sorted(wanted.keys() | found.keys()):
            if wanted.get(key) != found.get(key):
                raise UserError(
                    f"dedup.against: the signatures of {run.root} have {key} = {found.get(key)!r}, this recipe "
                    f"{wanted.get(key)!r}: set dedup.{key} alike, or run one of the two again"
                )
    return runs


def _place(root: str) -> str:
    """A root by which it can be compared: local ones without links and dots."""
    return storage.plain(root) if storage.is_s3(root) else os.path.realpath(root)


def inputs(runs: Sequence[Earlier]) -> list[dict[str, Any]]:
    """What of earlier runs enters the fingerprint: each one's root and the hash of its signatures."""
    return [{"against": run.root, "hash": run.manifest.tables["signatures"].hash} for run in runs]
