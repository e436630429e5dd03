"""Step ``tasks``: small instructions with answers that can be checked, and preference pairs of them.

``python -m dataeng.acquire.tasks RECIPE`` publishes the tables ``train``, ``test`` (``{"category",
"instruction", "input", "output"}``), ``preferences`` and ``preferences_test`` (``{"prompt", "chosen",
"rejected"}``) as JSONL. A hash of the instruction alone decides between train and test, so that no seed,
size or choice of kinds moves an instruction across.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field

from dataeng import stage, storage
from dataeng.cli import UserError
from dataeng.recipe import Recipe, Table, main_with_recipe

WORDS = tuple(
    """
apple bread bird blue boat book box car cat chair city cloud coat cold corn day desk dog door east
face farm fire fish food game gold green hand hat hill home horse house ice king lake land lamp leaf
light milk moon name night note paper park rain red river road rock room salt sea ship snow star sun
""".split()  # noqa: SIM905 — a list of literals would be sixty lines
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Kind = Literal["copy", "reverse", "upper", "count", "compare", "sum"]


class Task(NamedTuple):
    """An instruction, its one right answer, and answers that a hurried reader might give instead."""

    kind: str
    instruction: str
    answer: str
    wrong: tuple[str, ...]


class Config(Table):
    """Table ``tasks``."""

    version: ClassVar[int] = 1
    kinds: tuple[Kind, ...] = Field(get_args(Kind), min_length=1, description="Kinds of tasks, in equal share")
    train: int = Field(12_000, ge=1, description="Training items; small kinds (100 sums) repeat")
    test: int = Field(
        720, ge=1, description="Test items at most, all different, equal shares (of the 100 sums about 20 are there)"
    )
    preferences: int = Field(4_000, ge=0, description="Preference pairs for training, from training instructions")
    preferences_test: int = Field(400, ge=0, description="Held-back pairs, from test instructions, all different")
    test_share: float = Field(0.2, gt=0, lt=1, description="Share of all instructions that belong to the test set")


def _damaged(words: list[str], rng: random.Random, others: Sequence[str]) -> list[str]:
    """Answers near a list of words: two neighbours exchanged, one word lost, one replaced."""
    at = rng.randrange(len(words) - 1)
    swapped = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
    lost = rng.randrange(len(words))
    shorter = [*words[:lost], *words[lost + 1 :]]
    replaced = [*words]
    replaced[rng.randrange(len(words))] = rng.choice(others)
    return [" ".join(w) for w in (swapped, shorter, replaced) if w != words]


def _copy(rng: random.Random) -> Task:
    words = rng.sample(WORDS, rng.randint(2, 4))
    wrong = [*_damaged(words, rng, WORDS), " ".join(reversed(words))]
    return Task("copy", f"Copy: {' '.join(words)}", " ".join(words), tuple(wrong))


def _reverse(rng: random.Random) -> Task:
    words = rng.sample(WORDS, rng.randint(2, 3))
    right = words[::-1]
    return Task("reverse", f"Reverse: {' '.join(words)}", " ".join(right), (*_damaged(right, rng, WORDS),))


def _upper(rng: random.Random) -> Task:
    letters = [rng.choice(LETTERS) for _ in range(rng.randint(2, 4))]
    right = [letter.upper() for letter in letters]
    wrong = [*_damaged(right, rng, list(LETTERS.upper())), " ".join(letters)]
    return Task("upper", f"Upper case: {' '.join(letters)}", " ".join(right), tuple(wrong))


def _count(rng: random.Random) -> Task:
    count = rng.randint(1, 5)
    wrong = [str(n) for n in (count - 1, count + 1) if n > 0]
    return Task("count", f"Count the words: {' '.join(rng.sample(WORDS, count))}", str(count), tuple(wrong))


def _compare(rng: random.Random) -> Task:
    first, second = rng.sample(range(100), 2)
    right, wrong = max(first, second), min(first, second)
    return Task("compare", f"Which is larger, {first} or {second}?", str(right), (str(wrong),))


def _sum(rng: random.Random) -> Task:
    first, second = rng.randrange(10), rng.randrange(10)
    total = first + second
    wrong = [str(n) for n in (total - 2, total - 1, total + 1, total + 2) if n >= 0]
    return Task("sum", f"What is {first} plus {second}?", str(total), tuple(wrong))


MAKERS: dict[str, Callable[[random.Random], Task]] = {
    "copy": _copy,
    "reverse": _reverse,
    "upper": _upper,
    "count": _count,
    "compare": _compare,
    "sum": _sum,
}


def is_test(instruction: str, test_share: float) -> bool:
    """Whether an instruction belongs to the test set: a function of its text alone."""
    digest = hashlib.blake2b(instruction.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < test_share * 2**64


def _draw(kind: str, rng: random.Random, test: bool, share: float) -> Task:
    for _ in range(10_000):
        task = MAKERS[kind](rng)
        if is_test(task.instruction, share) == test:
            return task
    side = "test" if test else "training"
    raise UserError(f"tasks.test_share = {share}: leaves no {side} instruction of kind {kind!r}")


def training_tasks(config: Config, seed: int, purpose: str, number: int) -> list[Task]:
    """``number`` training tasks, the kinds in turn, drawn with replacement."""
    rng = random.Random(f"tasks {seed} {purpose}")
    kinds = config.kinds
    return [_draw(kinds[index % len(kinds)], rng, False, config.test_share) for index in range(number)]


def test_tasks(config: Config, seed: int, purpose: str, number: int) -> list[Task]:
    """At most ``number`` different test tasks in equal shares; small kinds give all that they have."""
    rng = random.Random(f"tasks {seed} {purpose}")
    share = -(-number // len(config.kinds))
    tasks: list[Task] = []
    for kind in config.kinds:
        mine: dict[str, Task] = {}
        for _ in range(share * 10):
            task = _draw(kind, rng, True, config.test_share)
            mine.setdefault(task.instruction, task)
            if len(mine) == share:
                break
        tasks += mine.values()
    rng.shuffle(tasks)
    return tasks[:number]


def as_item(task: Task) -> dict[str, str]:
    """The row of a task in the tables ``train`` and ``test``."""
    return {"category": task.kind, "instruction": task.instruction, "input": "", "output": task.answer}


def as_pair(task: Task, rng: random.Random) -> dict[str, str]:
    """A preference pair: the right answer before one of the wrong ones."""
    return {"prompt": task.instruction, "chosen": task.answer, "rejected": rng.choice(task.wrong)}


def tables(config: Config, seed: int) -> dict[str, list[dict[str, str]]]:
    """All four tables; a pure function of the config and the seed."""
    rng = random.Random(f"tasks {seed} pairs")
    pairs = training_tasks(config, seed, "preferences", config.preferences)
    held_back = test_tasks(config, seed, "preferences_test", config.preferences_test) if config.preferences_test else []
    return {
        "train": [as_item(task) for task in training_tasks(config, seed, "train", config.train)],
        "test": [as_item(task) for task in test_tasks(config, seed, "test", config.test)],
        "preferences": [as_pair(task, rng) for task in pairs],
        "preferences_test": [as_pair(task, rng) for task in held_back],
    }


def _write(attempt: stage.Attempt, name: str, rows: list[dict[str, str]]) -> stage.TableEntry:
    path = storage.join(attempt.data_folder, f"{name}.jsonl")
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    storage.write_bytes(path, data)
    entry = stage.file_table(attempt.folder, [path])
    files = [entry.files[0].model_copy(update={"rows": len(rows)})]
    return stage.TableEntry(rows=len(rows), hash=entry.hash, files=files)


def step(recipe: Recipe, name: str = "tasks") -> stage.Manifest:
    """Generate and publish the tasks of a recipe, unless they stand published."""
    attempt = stage.begin(recipe, name, [])
    if isinstance(attempt, stage.Manifest):
        return attempt
    config: Any = attempt.config
    made = tables(config, recipe.seed)
    entries = {table: _write(attempt, table, rows) for table, rows in made.items()}
    counts = {table: len(rows) for table, rows in made.items()}
    manifest = attempt.publish(attempt.manifest(tables=entries, counts=counts))
    stage.log.info("%s: %s", name, ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    return manifest


def main() -> None:
    """Entry point of ``python -m dataeng.acquire.tasks RECIPE``."""
    main_with_recipe(lambda recipe: (step(recipe), None)[1])


if __name__ == "__main__":
    from dataeng.acquire import tasks  # the module under its own name: classes must be the same objects

    tasks.main()
