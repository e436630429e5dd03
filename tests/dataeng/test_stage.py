"""The stage contract: what is done, what is whole, one publish, sums that any order and cut give alike."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng import slices, stage, storage
from dataeng.cli import Conflict, UserError
from dataeng.document import Document, Verdict, to_batch, to_dropped, to_row
from dataeng.manifest import FileEntry, Manifest, TableEntry
from dataeng.recipe import Recipe, Table
from dataeng.stage import Attempt

HASHES = st.lists(st.integers(0, 2**128 - 1).map(lambda value: f"{value:032x}"), max_size=20)


class Config(Table):
    """The config of the step of these tests."""

    threshold: float = 0.5


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(Recipe, "config_class", lambda self, name: Config)
    return Recipe("r.toml", str(tmp_path / "root"), 0, {"work": {}})


def other(recipe: Recipe) -> Recipe:
    """The recipe with another threshold."""
    return replace(recipe, tables={"work": {"threshold": 0.7}})


def rows(count: int = 10) -> list[dict[str, Any]]:
    """Rows of which every third is dropped."""
    documents = [Document(f"{number:032x}", f"text {number}", scores={"words": number}) for number in range(count)]
    verdict = Verdict(False, "words.min", 1, 2, "min")
    return [to_row(d) if n % 3 else to_dropped(d, "work", verdict) for n, d in enumerate(documents)]


def write(attempt: Attempt, parts: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """Write rows as an engine does: a folder a table, a file a partition; the table is no column."""
    paths = []
    for number, part in enumerate(parts):
        for table in ("kept", "dropped"):
            mine = [row for row in part if row["table"] == table]
            if mine:
                path = Path(attempt.data_folder, f"table={table}", f"part-{number}.parquet")
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_batches([to_batch(mine)]).drop_columns(["table"]), path)
                paths.append(str(path))
    return paths


def finish(attempt: Attempt, parts: Sequence[Sequence[dict[str, Any]]]) -> Manifest:
    """The manifest of an attempt over those partitions, not yet published."""
    facts = [stage.measure(path) for path in write(attempt, parts)]
    came = [row for part in parts for row in part]
    counts = stage.check_balance(attempt, facts, len(came), stage.add_hashes(stage.id_hash(r["id"]) for r in came))
    return attempt.manifest(tables=stage.tables_of(facts, attempt), counts=counts, dropped_by=stage.dropped_by(facts))


def begin(recipe: Recipe, inputs: Sequence[dict[str, Any]] = ()) -> Attempt:
    attempt = stage.begin(recipe, "work", inputs)
    assert isinstance(attempt, Attempt)
    return attempt


def done(recipe: Recipe) -> Manifest:
    found = stage.begin(recipe, "work", [])
    assert isinstance(found, Manifest)
    return found


# --- begin, publish, read ---------------------------------------------------------------------


def test_finished_work_is_found_and_changed_work_begun_again(recipe: Recipe) -> None:
    attempt = begin(recipe)
    published = attempt.publish(finish(attempt, [rows()]))
    assert done(recipe) == published == stage.need_manifest(recipe.root, "work", "test")
    assert published.counts == {"in": 10, "kept": 6, "dropped": 4}
    assert published.dropped_by == {"words.min": 4}
    assert begin(other(recipe)).fingerprint != attempt.fingerprint
    assert begin(recipe, [{"stage": "a", "hash": "1"}]).fingerprint != attempt.fingerprint
    assert begin(replace(recipe, seed=1)).fingerprint != attempt.fingerprint


def test_a_replacement_is_published_over_the_manifest_it_saw(recipe: Recipe) -> None:
    first = begin(recipe)
    first.publish(finish(first, [rows()]))
    second = begin(other(recipe))
    published = second.publish(finish(second, [rows(7)]))
    assert stage.need_manifest(recipe.root, "work", "test") == published
    assert published.counts["in"] == 7


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_files_that_are_missing_or_cut_make_a_stage_undone(recipe: Recipe, harm: str) -> None:
    attempt = begin(recipe)
    published = attempt.publish(finish(attempt, [rows()]))
    assert stage.is_whole(attempt.folder, published)
    path = Path(stage.table_paths(attempt.folder, published)[0])
    path.unlink() if harm == "missing" else os.truncate(path, path.stat().st_size - 1)
    assert not stage.is_whole(attempt.folder, published)
    again = begin(recipe)
    assert again.attempt != attempt.attempt
    assert done_after(again) == stage.need_manifest(recipe.root, "work", "test")


def done_after(attempt: Attempt) -> Manifest:
    return attempt.publish(finish(attempt, [rows()]))


def test_the_second_of_two_equal_runs_takes_what_the_first_published(recipe: Recipe) -> None:
    first, second = begin(recipe), begin(recipe)
    one = first.publish(finish(first, [rows()]))
    two = second.publish(finish(second, [rows()]))
    assert two == one
    assert two.attempt == first.attempt


@pytest.mark.parametrize("standing", [False, True])
def test_another_result_published_meanwhile_is_a_conflict(recipe: Recipe, standing: bool) -> None:
    if standing:
        before = begin(replace(recipe, seed=9))
        before.publish(finish(before, [rows()]))
    first, second = begin(recipe), begin(other(recipe))
    one = first.publish(finish(first, [rows()]))
    with pytest.raises(Conflict, match="another run with other settings or inputs published meanwhile"):
        second.publish(finish(second, [rows(5)]))
    assert stage.need_manifest(recipe.root, "work", "test") == one


def _publish(root: str, start: Any, published: Any) -> None:
    attempt = Attempt("work", f"{root}/work", Config(), "same", [], None)
    manifest = attempt.manifest(counts={"in": 0})
    start.wait()
    published.put((attempt.attempt, attempt.publish(manifest).attempt))


def test_what_is_written_in_place_is_unpublished_first(recipe: Recipe) -> None:
    path = Path(recipe.root, "work", "manifest.json")
    done_after(begin(recipe))
    first, late, third = begin(other(recipe)), begin(other(recipe)), begin(replace(recipe, seed=9))
    assert first.unpublish()
    assert not path.exists()
    done_after(first)
    with pytest.raises(Conflict, match="published meanwhile"):
        third.unpublish()
    assert not late.unpublish(), "the same result stands there"
    assert path.exists()
    one, two = begin(recipe), begin(replace(recipe, seed=9))
    assert one.unpublish()
    assert two.unpublish(), "nothing stands there: the other may have died"
    with pytest.raises(Conflict, match="writes over the same files"):
        done_after(one)
    done_after(two)


def test_of_runs_started_at_once_all_end_with_one_manifest(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(10):
        start, published = context.Barrier(3), context.Queue()
        target = (str(tmp_path / str(turn)), start, published)
        processes = [context.Process(target=_publish, args=target) for _ in range(3)]
        for process in processes:
            process.start()
        pairs = [published.get() for _ in processes]
        for process in processes:
            process.join()
        winners = {standing for _, standing in pairs}
        assert len(winners) == 1
        assert sum(own == standing for own, standing in pairs) == 1


def test_nothing_stands_before_it_is_published(recipe: Recipe) -> None:
    finish(begin(recipe), [rows()])
    with pytest.raises(UserError, match=r"later: its input .*/root/work has not been published: run `work` first"):
        stage.stage_inputs(recipe.root, "work", "later")


def test_inputs_are_the_hashes_of_the_tables_read(recipe: Recipe) -> None:
    attempt = begin(recipe)
    manifest = attempt.publish(finish(attempt, [rows()]))
    want = [{"stage": "work", "hash": manifest.tables["kept"].hash}]
    assert stage.stage_inputs(recipe.root, "work", "later") == want
    assert stage.stage_inputs(recipe.root, ["work"], "later", "dropped")[0]["hash"] == manifest.tables["dropped"].hash
    elsewhere = stage.stage_inputs("another/root", f"{recipe.root}/work", "later")
    assert elsewhere[0]["hash"] == want[0]["hash"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"manifest.json: is damaged \(.*\): delete it and run the step again"),
        (b'{"stage": "work"', "is damaged"),
        (b'{"stage": "work"}', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (None, "has format 2, this version reads 1: use another root"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(recipe: Recipe, data: bytes | None, message: str) -> None:
    if data is None:
        attempt = begin(recipe)
        data = json.dumps(json.loads(finish(attempt, [rows()]).encoded()) | {"format": 2}).encode()
    storage.write_bytes(f"{recipe.root}/work/manifest.json", data)
    with pytest.raises(UserError, match=message):
        stage.begin(recipe, "work", [])


def test_an_input_published_anew_meanwhile_is_found(recipe: Recipe) -> None:
    source = begin(recipe)
    source.publish(finish(source, [rows()]))
    later = Attempt("later", f"{recipe.root}/later", Config(), "f", stage.stage_inputs(recipe.root, "work", "l"), None)
    stage.check_inputs(recipe.root, later)
    again = begin(other(recipe))
    again.publish(finish(again, [rows(5)]))
    with pytest.raises(Conflict, match="later: its input work was published anew meanwhile: run it again"):
        stage.check_inputs(recipe.root, later)


# --- hashes and sums --------------------------------------------------------------------------


@given(values=HASHES, seed=st.integers())
def test_sums_of_hashes_depend_on_no_order_and_no_grouping(values: list[str], seed: int) -> None:
    shuffled = values.copy()
    random.Random(seed).shuffle(shuffled)
    cut = random.Random(seed).randint(0, len(values))
    parts = [stage.add_hashes(shuffled[:cut]), stage.add_hashes(shuffled[cut:])]
    assert stage.add_hashes(values) == stage.add_hashes(shuffled) == stage.add_hashes(parts)
    assert len(stage.add_hashes(values)) == 32


def test_tables_are_the_same_for_any_partitioning_and_order(recipe: Recipe, tmp_path: Path) -> None:
    every, found = rows(30), []
    cuts = ([every], [every[::-1]], [every[:7], every[7:]], [every[number::7] for number in range(7)])
    for number, parts in enumerate(cuts):
        manifest = finish(begin(replace(recipe, root=str(tmp_path / str(number)))), parts)
        found.append({name: (table.rows, table.hash) for name, table in manifest.tables.items()})
    assert found.count(found[0]) == len(found)
    fewer = finish(begin(replace(recipe, root=str(tmp_path / "fewer"))), [every[:-1]])
    assert fewer.tables["kept"].hash != found[0]["kept"][1]


def test_rows_lost_doubled_or_exchanged_are_not_published(recipe: Recipe) -> None:
    every = rows(9)
    ids = stage.add_hashes(stage.id_hash(row["id"]) for row in every)
    exchanged = [*every[:-2], every[0], every[1]]
    for wrong, message in ((every[:-1], "9 rows came in"), ([*every, every[0]], "9 rows came in"), (exchanged, "ids")):
        attempt = begin(recipe)
        facts = [stage.measure(path) for path in write(attempt, [wrong])]
        with pytest.raises(stage.Broken, match=message):
            stage.check_balance(attempt, facts, 9, ids)
    attempt = begin(recipe)
    facts = [stage.measure(path) for path in write(attempt, [every])]
    assert stage.check_balance(attempt, facts, 9, ids) == {"in": 9, "kept": 6, "dropped": 3}


def test_verify_finds_what_was_changed_cut_or_deleted(recipe: Recipe) -> None:
    attempt = begin(recipe)
    published = attempt.publish(finish(attempt, [rows(4), rows(10)[4:]]))
    assert stage.verify(recipe.root, "work") == []
    path = Path(stage.table_paths(attempt.folder, published)[0])
    whole = path.read_bytes()
    table = pq.read_table(path)
    texts = ["another", *table["text"].to_pylist()[1:]]
    changed = table.set_column(table.column_names.index("text"), "text", pa.array(texts))
    pq.write_table(changed, path)
    assert [line.partition(":")[0] for line in stage.verify(recipe.root, "work")] == ["kept"]
    path.write_bytes(whole[: len(whole) // 2])
    assert "kept: cannot be read" in stage.verify(recipe.root, "work")[0]
    path.unlink()
    assert stage.verify(recipe.root, "work") == [f"kept: {path} is missing"]
    path.write_bytes(whole)
    assert stage.verify(recipe.root, "work") == []


def test_tables_of_plain_files_are_hashed_by_name_and_contents(tmp_path: Path) -> None:
    folder = str(tmp_path)
    storage.write_bytes(f"{folder}/data/1/a.bin", b"one")
    storage.write_bytes(f"{folder}/data/1/b.bin", b"two")
    paths = [f"{folder}/data/1/{name}.bin" for name in "ab"]
    table = stage.file_table(folder, paths)
    assert table == stage.file_table(folder, paths[::-1])
    assert [(file.path, file.bytes) for file in table.files] == [("data/1/a.bin", 3), ("data/1/b.bin", 3)]
    storage.write_bytes(paths[0], b"two")
    storage.write_bytes(paths[1], b"one")
    assert stage.file_table(folder, paths).hash != table.hash


# --- slices -----------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 50), max_size=30), limit=st.integers(1, 100), seed=st.integers())
def test_slices_hold_every_file_once_in_order_and_stop_at_the_limit(sizes: list[int], limit: int, seed: int) -> None:
    files = [{"path": f"f{number:03}", "size": size} for number, size in enumerate(sizes)]
    shuffled = files.copy()
    random.Random(seed).shuffle(shuffled)
    found = slices.cut_slices(shuffled, limit)
    assert [file for part in found for file in part] == files
    for number, part in enumerate(found):
        filled = sum(int(file["size"]) for file in part)
        assert part
        assert filled - int(part[-1]["size"]) < limit, "without its last file a slice is below the limit"
        assert number == len(found) - 1 or filled >= limit


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20), limit=st.integers(1, 100))
def test_files_that_sort_last_leave_full_slices_as_they_were(sizes: list[int], limit: int) -> None:
    files = [{"path": f"f{number:03}", "size": size} for number, size in enumerate(sizes)]
    before = slices.cut_slices(files[:-1], limit)
    after = slices.cut_slices(files, limit)
    assert after[: len(before) - 1] == before[:-1]


def test_a_stage_of_slices_is_their_sum(recipe: Recipe, tmp_path: Path) -> None:
    every, parts = rows(12), []
    for number in range(3):
        part = begin(recipe)
        part.slice, part.manifest_path = f"s{number}", f"slices/s{number}.json"
        manifest = finish(part, [every[number * 4 : number * 4 + 4]])
        details = {"seconds": 1.5, "kinds": {"html": number, f"only{number}": 1}, "name": f"n{number}"}
        parts.append(part.publish(manifest.model_copy(update={"details": details})))
        assert all(f"data/s{number}/" in file.path for table in manifest.tables.values() for file in table.files)
    merged = slices.merge(begin(recipe), parts)
    whole = finish(begin(replace(recipe, root=str(tmp_path / "whole"))), [every])
    assert merged.counts == whole.counts
    assert merged.dropped_by == whole.dropped_by
    assert {n: (t.rows, t.hash) for n, t in merged.tables.items()} == {
        n: (t.rows, t.hash) for n, t in whole.tables.items()
    }
    kinds = {"html": 3, "only0": 1, "only1": 1, "only2": 1}
    assert merged.details == {"slices": 3, "seconds": 4.5, "kinds": kinds, "name": "n0"}
    begin(recipe).publish(merged)
    assert stage.verify(recipe.root, "work") == []


def test_manifests_survive_their_json() -> None:
    manifest = Manifest(
        stage="s",
        version=1,
        attempt="a",
        fingerprint="f",
        config={"a": [1, "ä"]},
        tables={"kept": TableEntry(rows=1, hash="0" * 32, files=[FileEntry(path="p", rows=1, bytes=2)])},
    )
    assert Manifest.model_validate_json(manifest.encoded()) == manifest
