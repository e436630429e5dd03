"""The recipe: one TOML file, overrides from the command line, and a checked config for each step.

``python -m dataeng.recipe RECIPE [KEY=VALUE …]`` checks a whole recipe and prints it resolved.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dataeng import storage
from dataeng.cli import UserError, run

# Where the config class of a step may stand: a table's name is the name of its module.
HOMES = (
    "dataeng.{}",
    "dataeng.acquire.{}",
    "dataeng.tokens.{}",
    "training.methods.{}",
    "training.{}",
)
_ENGINES = {"spark": "dataeng.engine:Spark", "ray": "dataeng.engine:Ray"}


def runtime(default: Any = ..., **more: Any) -> Any:
    """A field that says how a step runs and never changes its results: left out of fingerprints."""
    return Field(default, json_schema_extra={"runtime": True}, **more)


def content(default: Any = ..., **more: Any) -> Any:
    """A field that names a file (or a list of files) whose contents enter the fingerprint."""
    return Field(default, json_schema_extra={"content": True}, **more)


class Table(BaseModel):
    """A table of the recipe. Subclasses stand in the file of their step, under the name ``Config``."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    version: ClassVar[int] = 1  # raised whenever the step's results change
    libraries: ClassVar[tuple[str, ...]] = ()  # distributions whose versions change results
    kept_tables: ClassVar[tuple[str, ...]] = ("kept",)  # the tables that hold what the step keeps
    follows: ClassVar[tuple[str, ...]] = ()  # `input` is by default the first of these steps that the recipe has

    def parts(self) -> Iterator[tuple[str, Table]]:
        """The tables inside this one, each with its dotted name."""
        for name in (*type(self).model_fields, *(self.model_extra or {})):
            value = getattr(self, name)
            items = value if isinstance(value, list | tuple) else [value]
            for index, item in enumerate(items):
                if isinstance(item, Table):
                    yield (f"{name}.{index}" if isinstance(value, list | tuple) else name), item

    def files(self) -> list[str]:
        """Every file that this table and the tables in it name, whose contents change results."""
        named: list[str] = []
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("content"):
                value = getattr(self, name)
                named += [value] if isinstance(value, str) else list(value or [])
        for _, part in self.parts():
            named += part.files()
        return named

    def _named_files(self) -> dict[str, int]:
        """How many files each content field names: the same file in another field is another result."""
        fields = type(self).model_fields.items()
        named = [n for n, f in fields if isinstance(f.json_schema_extra, dict) and f.json_schema_extra.get("content")]
        values = {name: getattr(self, name) for name in named}
        return {name: 1 if isinstance(value, str) else len(value or ()) for name, value in values.items()}

    def results(self) -> dict[str, Any]:
        """The fields that change results, with the version of each part: what a fingerprint hashes.

        Names of files are left out: their contents are hashed instead (``files``).
        """
        hidden = {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.keys() & {"runtime", "content"}
        }
        plain = self.model_dump(mode="json", exclude=hidden) | self._named_files()
        for name, part in self.parts():
            if name.split(".")[0] not in hidden:
                plain.pop(name.split(".")[0], None)
                plain[name] = part.results()
        return plain | {"version": type(self).version}


class Rules(Table):
    """A table whose ``rules`` name modules of one package, each with a table of its own name inside.

    A subclass sets ``package``; sub-tables are checked by the ``Config`` of the module of that name.
    """

    model_config = ConfigDict(frozen=True, extra="allow", validate_default=True)
    package: ClassVar[str]

    def __init__(self, **values: Any) -> None:
        package = type(self).package
        for name, value in values.items():
            if name not in type(self).model_fields and isinstance(value, dict):
                values[name] = _checked(package, name, value)
        rules = values.get("rules", type(self).model_fields["rules"].default)
        for name in rules if isinstance(rules, list | tuple) else ():
            if isinstance(name, str) and name not in values:
                values[name] = _checked(package, name, {})
        super().__init__(**values)
        for name in self.model_extra or {}:
            if not isinstance(getattr(self, name), Table):
                raise ValueError(f"{name}: unknown key")

    @field_validator("rules", check_fields=False)
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} named twice")
        return names


class KeyProblem(Exception):
    """What is wrong with one key, before the file's name is put in front."""

    def __init__(self, key: str, value: Any, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key, self.value, self.message = key, value, message


def _first_problem(name: str, error: ValidationError, model: type[BaseModel]) -> KeyProblem:
    first = error.errors()[0]
    key = ".".join([name, *(str(part) for part in first["loc"])])
    message, value = first["msg"], first.get("input")
    if first["type"] == "extra_forbidden":
        inner = _table_at(model, first["loc"][:-1])
        message = "unknown key; allowed here: " + ", ".join(sorted(inner.model_fields))
    elif first["type"] == "missing":
        message, value = "is missing", None
    more = len(error.errors()) - 1
    message = message.removeprefix("Value error, ") + (f" (and {more} more)" if more else "")
    return KeyProblem(key, value, message[:1].lower() + message[1:])


def _table_at(model: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The model that stands at a place inside ``model``: a nested table, or one of a list of tables."""
    for part in place:
        field = model.model_fields.get(str(part))
        kinds = [field.annotation] if field else []
        while kinds:
            kind = kinds.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
            kinds += get_args(kind)
    return model


def build(model: type[BaseModel], name: str, values: dict[str, Any]) -> Any:
    """``model`` made from a table's values; raises KeyProblem with the dotted key that is wrong."""
    try:
        return model(**values)
    except ValidationError as error:
        raise _first_problem(name, error, model) from None
    except KeyProblem as problem:
        raise KeyProblem(f"{name}.{problem.key}", problem.value, problem.message) from None
    except ValueError as error:
        raise KeyProblem(name, None, str(error)) from None


def rule_config(package: str, name: str) -> type[Table] | None:
    """The config class that a module of a package defines; None of one that is no rule, or is not there."""
    if not name.isidentifier() or not _has_module(f"{package}.{name}"):
        return None
    found = getattr(importlib.import_module(f"{package}.{name}"), "Config", None)
    own = isinstance(found, type) and issubclass(found, Table) and found.__module__ == f"{package}.{name}"
    return found if own else None


def _checked(package: str, name: str, values: dict[str, Any]) -> Table:
    """The config of the rule module ``name`` of ``package``."""
    config = rule_config(package, name)
    if config is None:
        folder = Path(importlib.import_module(package).__path__[0])
        known = sorted(p.stem for p in folder.glob("[a-z]*.py") if rule_config(package, p.stem))
        there = name.isidentifier() and _has_module(f"{package}.{name}")
        what = "is a module, but not a rule" if there else "no such rule"
        raise KeyProblem(name, None, f"{what}; known: {', '.join(known)}")
    checked: Table = build(config, name, values)
    return checked


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def home(step: str) -> str | None:
    """The name of the module that holds a step's ``Config``, or None where there is no such step."""
    if not step.isidentifier():
        return None
    return next((name for where in HOMES if _has_module(name := where.format(step))), None)


@dataclass(frozen=True)
class Recipe:
    """A recipe's tables as written, its overrides applied. ``step(name)`` gives a checked config."""

    path: str
    root: str
    seed: int
    tables: dict[str, dict[str, Any]]

    def __contains__(self, name: str) -> bool:
        return name in self.tables

    def kind(self, name: str) -> str:
        """The step that a table configures: its key ``step`` or, without one, its name."""
        return str(self.tables.get(name, {}).get("step", name))

    def tables_of(self, kind: str) -> list[str]:
        """The names of the tables that configure a step, in the recipe's order; without any, the step's own name."""
        return [name for name in self.tables if self.kind(name) == kind] or [kind]

    def config_class(self, name: str) -> type[Table]:
        """The config class of a table; raises UserError where nothing goes by that name."""
        kind = self.kind(name)
        if kind in _ENGINES:
            module, _, attribute = _ENGINES[kind].partition(":")
        else:
            module, attribute = home(kind) or "", "Config"
        found = getattr(importlib.import_module(module), attribute, None) if module else None
        if found is None:
            raise UserError(f"{self.path}: [{name}]: no step is called {kind!r}")
        config: type[Table] = found
        return config

    def step(self, name: str) -> Any:
        """The checked config of a table (all defaults where the recipe does not have it)."""
        values = dict(self.tables.get(name, {}))
        config = self.config_class(name)
        if "step" not in config.model_fields:
            values.pop("step", None)
        before = next((step for step in config.follows if step in self), None)
        if before:
            values.setdefault("input", before)
        try:
            return build(config, name, values)
        except KeyProblem as problem:
            given = "" if problem.value is None else f" = {_show(problem.value)}"
            raise UserError(f"{self.path}: {problem.key}{given}: {problem.message}") from None

    def need(self, name: str) -> Any:
        """The checked config of a step that the recipe must have."""
        if name not in self.tables:
            raise UserError(f"{self.path}: has no table [{name}]: add one to run this step")
        return self.step(name)

    def check(self, homes: Sequence[str] = ("dataeng.", "training.")) -> None:
        """Check every table, the configs of those homes in full; raises UserError for the first problem."""
        for name in self.tables:
            if not re.fullmatch(r"[A-Za-z]\w*", name):
                raise UserError(f"{self.path}: [{name}]: a table's name is letters, digits and _ (it names a folder)")
            module = home(self.kind(name))
            if self.kind(name) not in _ENGINES and module is None:
                steps = "its name, or its key `step`, must be that of a step"
                raise UserError(f"{self.path}: [{name}]: unknown table; {steps}")
            if module is None or module.startswith(tuple(homes)):
                self.step(name)

    def check_files(self, homes: Sequence[str] = ("dataeng.",)) -> None:
        """Raise UserError for the first file that a table of those homes names but that is not there."""
        for name in self.tables:
            if (home(self.kind(name)) or "").startswith(tuple(homes)):
                for path in self.step(name).files():
                    if storage.stat(path) is None:
                        raise UserError(f"{self.path}: [{name}] names {path}: there is no such file")

    def resolved(self) -> dict[str, Any]:
        """The whole recipe with every default filled in."""
        tables = {name: self.step(name).model_dump(mode="json") for name in self.tables}
        return {"root": self.root, "seed": self.seed} | tables


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def override(values: dict[str, Any], argument: str) -> None:
    """Set a value by ``KEY=VALUE``: KEY may name tables with dots, VALUE is TOML or else a string. Raises UserError."""
    key, equals, text = argument.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"{argument}: an override is KEY=VALUE, such as filter.rules='[\"language\"]'")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"{argument}: {part} is a value, not a table")
    table[parts[-1]] = value


def load(arguments: Sequence[str], homes: Sequence[str] = ("dataeng.",)) -> Recipe:
    """The recipe named first in ``arguments`` with the overrides that follow, its tables checked.

    ``homes`` says which packages' tables are checked in full (training's import torch).
    Raises UserError, in one line, for whatever is wrong with it.
    """
    if not arguments:
        raise UserError("name a recipe, such as configs/demo.toml, then overrides such as root=runs/mine")
    path = arguments[0]
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such recipe") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read as TOML: {error}") from None
    for argument in arguments[1:]:
        override(values, argument)
    root, seed = values.pop("root", None), values.pop("seed", 0)
    if not isinstance(root, str) or not root:
        raise UserError(f"{path}: root = {_show(root)}: must be a folder or an s3:// address")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise UserError(f"{path}: seed = {_show(seed)}: must be a whole number")
    for name, value in values.items():
        if not isinstance(value, dict):
            raise UserError(f"{path}: {name} = {_show(value)}: unknown key; at the top stand root, seed and tables")
    recipe = Recipe(path, storage.plain(root), seed, values)
    recipe.check(homes)
    return recipe


def hash_files(paths: Sequence[str]) -> list[str]:
    """SHA-256 of each named file's contents; raises UserError for one that cannot be read."""
    hashes = []
    for path in paths:
        try:
            hashes.append(hashlib.sha256(storage.read_bytes(path)).hexdigest())
        except FileNotFoundError:
            raise UserError(f"{path}: the recipe names this file, but it is not there") from None
        except OSError as error:
            raise UserError(f"{path}: the recipe names this file, but it cannot be read: {error.strerror}") from None
    return hashes


def main_with_recipe(main: Callable[[Recipe], None], homes: Sequence[str] = ("dataeng.",)) -> None:
    """Run a job's ``main(recipe)`` on the command's recipe, with the house's exit statuses."""
    run(lambda arguments: main(load(arguments, homes)))


def _print(arguments: Sequence[str]) -> None:
    recipe = load(arguments, ("dataeng.", "training."))
    print(json.dumps(recipe.resolved(), indent=2, ensure_ascii=False))


def main() -> None:
    """Entry point of ``python -m dataeng.recipe``."""
    run(_print)


if __name__ == "__main__":
    from dataeng import recipe  # the module under its own name: classes must be the same objects

    recipe.main()
