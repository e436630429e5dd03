"""Step ``report``: one HTML file that opens from disk, ``summary.json`` with its numbers, a table to end with.

``python -m dataeng.report RECIPE`` reads what is published under the recipe's root, writes
ROOT/report.html and ROOT/summary.json, and prints the table.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dataeng.recipe import Table


class Config(Table):
    """Table ``report``."""

    version: ClassVar[int] = 1

    examples: int = Field(3, ge=0, le=50, description="Dropped documents shown for each rule")
    example_characters: int = Field(400, ge=0, description="Characters of text shown of each, at most")
    sample: int = Field(20_000, ge=100, description="Documents of each table that distributions are drawn from")
    groups: int = Field(12, ge=1, le=200, description="Languages and hosts named in the funnels by language and host")
    clusters: int = Field(10, ge=0, description="Largest clusters of duplicates shown")
    curve_points: int = Field(400, ge=20, description="Points of each curve, at most")
    answers: int = Field(12, ge=0, description="Sample answers shown")
