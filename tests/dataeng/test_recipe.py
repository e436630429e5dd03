"""The recipe: overrides, one-line errors through real processes, and what a fingerprint sees."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataeng import stage
from dataeng.cli import UserError
from dataeng.recipe import KeyProblem, Recipe, Table, build, content, hash_files, load, override, runtime


class Inner(Table):
    path: str | None = content(None)
    limit: int = 3


class Step(Table):
    version: ClassVar[int] = 2
    threshold: float = 0.5
    workers: int = runtime(2)
    model: str | None = content(None)
    lists: tuple[str, ...] = content(())
    inner: Inner = Inner()
    sets: tuple[Inner, ...] = ()


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "r.toml"
    path.write_text(text)
    return str(path)


def check(folder: Path, text: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dataeng.recipe", recipe_file(folder, text), *overrides]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=true", True),
        ("a.b=", ""),
        ("a.b=plain words", "plain words"),
        ("a.b=s3://bucket/run-7", "s3://bucket/run-7"),
        ('a.b=["en", "de"]', ["en", "de"]),
        ('a.b={x = 1, y = "z"}', {"x": 1, "y": "z"}),
        ('a.b="3"', "3"),
        ("a.b=x=y", "x=y"),
        ("a.b=2024-13-45", "2024-13-45"),
    ],
)
def test_an_override_is_toml_and_else_the_bare_string(argument: str, value: object) -> None:
    values: dict = {}
    override(values, argument)
    assert values == {"a": {"b": value}}


def test_overrides_reach_nested_tables_and_leave_their_neighbours() -> None:
    values = tomllib.loads("[filter.language]\nkeep = []\nthreshold = 0.3")
    override(values, "filter.language.threshold=0.65")
    override(values, "filter.gopher.mean_word_length.min=2")
    assert values["filter"] == {
        "language": {"keep": [], "threshold": 0.65},
        "gopher": {"mean_word_length": {"min": 2}},
    }


@pytest.mark.parametrize("argument", ["", "a", "=3", "a.=3", ".b=3", "a..b=3"])
def test_what_is_no_override_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match="an override is KEY=VALUE"):
        override({}, argument)


@given(st.text(max_size=30))
def test_any_text_is_an_override_value(text: str) -> None:
    values: dict = {}
    override(values, f"a={text}")
    assert "a" in values


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("seed = 1", (), "root = null: must be a folder or an s3:// address"),
        ("root = 7", (), "root = 7: must be a folder or an s3:// address"),
        ('root = "r"\nseed = "x"', (), 'seed = "x": must be a whole number'),
        ('root = "r"\nseed = true', (), "seed = true: must be a whole number"),
        ('root = "r"\ncolour = 3', (), "colour = 3: unknown key; at the top stand root, seed and tables"),
        (
            'root = "r"\n[nonsense]',
            (),
            "[nonsense]: unknown table; its name, or its key `step`, must be that of a step",
        ),
        ('root = "r"\n[cli]', (), "[cli]: no step is called 'cli'"),
        (
            'root = "r"\n["../x"]\nstep = "spark"',
            (),
            "[../x]: a table's name is letters, digits and _ (it names a folder)",
        ),
        (
            'root = "r"\n[spark]\npartitions = 0',
            (),
            "spark.partitions = 0: input should be greater than or equal to 1",
        ),
        (
            'root = "r"\n[spark]\npartitions = "many"',
            (),
            'spark.partitions = "many": input should be a valid integer, unable to parse string as an integer',
        ),
        (
            'root = "r"',
            ("ray.cpu=4",),
            "ray.cpu = 4: unknown key; allowed here: address, cpus, object_store_bytes",
        ),
        (
            'root = "r"',
            ("spark=4",),
            "spark = 4: unknown key; at the top stand root, seed and tables",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line_and_status_2(
    tmp_path: Path, text: str, overrides: tuple[str, ...], message: str
) -> None:
    done = check(tmp_path, text, *overrides)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/r.toml: {message}\n"


def test_a_recipe_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dataeng.recipe"]
    absent = subprocess.run([*command, str(tmp_path / "no.toml")], capture_output=True, text=True)
    assert (absent.returncode, absent.stderr) == (2, f"error: {tmp_path}/no.toml: there is no such recipe\n")
    none = subprocess.run(command, capture_output=True, text=True)
    assert none.returncode == 2
    assert none.stderr.startswith("error: name a recipe")
    damaged = check(tmp_path, "root = ")
    assert damaged.returncode == 2
    assert damaged.stderr.count("\n") == 1
    assert damaged.stderr.startswith(f"error: {tmp_path}/r.toml: cannot be read as TOML: ")
    folder = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert (folder.returncode, folder.stderr.count("\n")) == (2, 1)


def test_a_right_recipe_is_printed_resolved(tmp_path: Path) -> None:
    done = check(tmp_path, 'root = "r/"\n[spark]', "spark.partitions=3", "seed=5")
    assert done.returncode == 0
    assert '"root": "r"' in done.stdout
    assert '"seed": 5' in done.stdout
    assert '"partitions": 3' in done.stdout
    assert '"driver_memory"' in done.stdout


def test_roots_are_written_one_way(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, 'root = "s3a://bucket/run/"')
    assert load([path]).root == "s3://bucket/run"
    assert load([path, "root=/"]).root == "/"


def test_nested_unknown_keys_name_the_place_and_what_is_allowed_there() -> None:
    with pytest.raises(KeyProblem) as caught:
        build(Step, "step", {"sets": [{"limit": 1}, {"limits": 2}]})
    assert str(caught.value) == "step.sets.1.limits: unknown key; allowed here: limit, path"


def test_rules_that_are_no_list_are_refused_as_such(tmp_path: Path) -> None:
    for wrong in ("5", "language"):
        done = check(tmp_path, 'root = "r"', f"filter.rules={wrong}")
        assert done.returncode == 2
        assert "filter.rules = " in done.stderr
        assert "valid tuple" in done.stderr or "valid list" in done.stderr


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("passages.cut.minimum_characters=5", "passages.cut: is a module, but not a rule; known: lines, substrings"),
        ("passages.units={}", "passages.units: is a module, but not a rule; known: lines, substrings"),
        ('filter.rules=["words"]', "filter.words: is a module, but not a rule; known: c4, fineweb, gopher, language, "),
        ('filter.rules=["../url"]', "filter.../url: no such rule; known: c4, fineweb, gopher, language, lines, "),
    ],
)
def test_only_modules_with_a_config_of_their_own_are_rules(tmp_path: Path, override: str, says: str) -> None:
    """``cut`` and ``words`` stand beside rules; ``cut`` imports the Config of its step, and so has one by that name."""
    path = recipe_file(tmp_path, 'root = "r"')
    with pytest.raises(UserError) as caught:
        load([path, override])
    assert str(caught.value).startswith(f"{path}: {says}")
    assert load([path, "passages.lines.minimum_documents=9", 'filter.rules=["url"]']).step("passages").lines


def test_a_named_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recipe names this file, but it is not there"):
        hash_files([str(tmp_path / "absent.bin")])
    with pytest.raises(UserError, match="cannot be read"):
        hash_files([str(tmp_path)])


def test_fingerprints_leave_runtime_out_and_take_contents_in(tmp_path: Path) -> None:
    a, b, same = tmp_path / "a", tmp_path / "b", tmp_path / "same"
    a.write_text("one")
    b.write_text("two")
    same.write_text("one")

    def of(seed: int = 0, inputs: tuple[str, ...] = (), **values: object) -> str:
        return stage.fingerprint(Step(**values), seed, list(inputs))

    base = of(model=str(a))
    assert of(model=str(a), workers=9) == base
    assert of(model=str(same)) == base, "the name of a file does not matter"
    different = [
        of(model=str(b)),
        of(),
        of(lists=(str(a),)),
        of(inner=Inner(path=str(a))),
        of(model=str(a), threshold=0.6),
        of(model=str(a), inner=Inner(limit=4)),
        of(model=str(a), sets=(Inner(),)),
        of(model=str(a), seed=1),
        of(model=str(a), inputs=("x",)),
    ]
    assert len({base, *different}) == len(different) + 1


def test_fingerprints_change_with_versions_of_any_part() -> None:
    class Newer(Step):
        version: ClassVar[int] = 3

    class NewerInner(Inner):
        version: ClassVar[int] = 2

    prints = {stage.fingerprint(c, 0, []) for c in (Step(), Newer(), Step(inner=NewerInner()))}
    assert len(prints) == 3


def test_fingerprints_change_with_declared_libraries() -> None:
    class Declares(Step):
        libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    assert stage.fingerprint(Declares(), 0, []) != stage.fingerprint(Step(), 0, [])


def test_check_files_names_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("r.toml", "r", 0, {"work": {"step": "publish", "model": str(tmp_path / "m.bin")}})
    monkeypatch.setattr(Recipe, "step", lambda self, name: Step(model=str(tmp_path / "m.bin")))
    with pytest.raises(UserError, match=r"r.toml: \[work\] names .*m.bin: there is no such file"):
        recipe.check_files()
    recipe.check_files(["training."])
    (tmp_path / "m.bin").touch()
    recipe.check_files()
