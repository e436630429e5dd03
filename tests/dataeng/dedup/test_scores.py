"""A rule of survival by a score that no document has is refused: in the recipe, else from the input's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng import stage
from dataeng.cli import UserError
from dataeng.dedup import scores
from dataeng.document import Document, to_batch, to_row
from dataeng.recipe import Recipe, Table
from dataeng.stage import Attempt


def publish(root: Path, name: str, of_files: list[list[dict[str, float]]], group: int = 2) -> None:
    """A stage whose kept documents have these scores, file by file, in row groups of ``group``."""
    attempt = Attempt(name, str(root / name), Table(), "0" * 32, [], None)
    paths = []
    for number, documents in enumerate(of_files):
        rows = [to_row(Document(id=f"{number}-{k}", text="text", scores=one)) for k, one in enumerate(documents)]
        path = Path(attempt.data_folder, "table=kept", f"part-{number}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_batches([to_batch(rows)]).drop_columns(["table"])
        pq.write_table(table, path, row_group_size=group)
        paths.append(str(path))
    tables = stage.tables_of([stage.measure(path) for path in paths], attempt)
    count = sum(map(len, of_files))
    attempt.publish(attempt.manifest(tables=tables, counts={"in": count, "kept": count, "dropped": 0}))


NONE: list[dict[str, float]] = [{}, {}, {}]
OTHER: list[dict[str, float]] = [
    {"a": 1.0, "b.one": 0.5, "b.two": 0.5, "z": 0.5}
] * 3  # whose statistics allow every name between
LAST: list[dict[str, float]] = [{"a": 0.1}, {}, {"a": 0.2}, {"z": 1.0}, {"quality": 0.3}]


@pytest.mark.parametrize("files", [[LAST], [NONE, OTHER, LAST], [NONE] * 30 + [LAST]])
def test_one_document_with_the_score_is_enough(tmp_path: Path, files: list[list[dict[str, float]]]) -> None:
    publish(tmp_path, "texts", files)
    scores.check(Recipe("r.toml", str(tmp_path), 0, {}), "dedup", "highest:quality", "texts")


@pytest.mark.parametrize(
    ("files", "known"),
    [([NONE, []], "they have none: `filter` makes scores"), ([OTHER, NONE, OTHER], "some have a, b.…, z")],
)
def test_a_score_that_no_document_has_is_told(tmp_path: Path, files: list[Any], known: str) -> None:
    publish(tmp_path, "texts", files)
    publish(tmp_path, "more", [NONE])
    with pytest.raises(UserError) as caught:
        scores.check(Recipe("r.toml", str(tmp_path), 0, {}), "dedup", "highest:quality", ["texts", "more"])
    wanted = "no document of texts, more has the score 'quality'; "
    assert str(caught.value) == f'r.toml: dedup.keep = "highest:quality": {wanted}{known}'


def test_other_rules_of_survival_and_empty_inputs_are_let_pass(tmp_path: Path) -> None:
    recipe = Recipe("r.toml", str(tmp_path), 0, {})
    scores.check(recipe, "dedup", "longest", "nothing-published")
    publish(tmp_path, "texts", [])
    scores.check(recipe, "dedup", "highest:quality", "texts")


def recipe(**tables: Any) -> Recipe:
    return Recipe("r.toml", "root", 0, {"extract": {"input": ["x"]}, "filter": {}, "dedup": {}} | tables)


@pytest.mark.parametrize(
    ("tables", "wrong"),
    [
        ({"dedup": {"input": "filter", "keep": "highest:quality"}}, "quality"),
        ({"decontaminate": {}, "dedup": {"keep": "highest:c4.sentences"}}, "c4"),
        ({"dedup": {"input": "filter"}, "semantic": {"keep": "highest:quality"}}, "quality"),
        ({"filter": {"rules": ["quality"]}, "dedup": {"input": "filter", "keep": "highest:quality"}}, None),
        ({"dedup": {"input": "filter", "keep": "highest:gopher.words"}}, None),
        ({"dedup": {"input": "filter", "keep": "highest:bounds"}}, None),  # no rule: the documents will tell
        ({"dedup": {"input": "elsewhere/filter", "keep": "highest:quality"}}, None),  # made by another recipe
        ({"dedup": {"input": ["filter", "ready"], "keep": "highest:quality"}}, None),
        ({"dedup": {"input": "dedup", "keep": "highest:quality"}}, None),
    ],
)
def test_a_recipe_tells_whether_its_filter_makes_the_score(tables: dict[str, Any], wrong: str | None) -> None:
    if wrong is None:
        scores.check_recipe(recipe(**tables))
        return
    with pytest.raises(UserError, match=rf"^r\.toml: \w+\.keep = .*: filter\.rules has no '{wrong}' \(but "):
        scores.check_recipe(recipe(**tables))
