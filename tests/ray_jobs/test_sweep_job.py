"""The sweep and the evaluation on a real Ray cluster, over a root of generated tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataeng import stage, tokens
from dataeng.acquire import tasks
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.tokens import chat, shards, tokenizer

MODEL = {"layers": 1, "width": 32, "heads": 2, "context": 64}
PRETRAIN = {"max_steps": 2, "batch": 4, "micro_batch": 4, "precision": "fp32", "model": MODEL, "validation_samples": 4}
SPACE = {"pretrain.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
REPEATED = 50  # each so many-th document of the training split is to be used three times
TABLES = {
    "tasks": {"train": 400, "test": 24, "preferences": 0, "preferences_test": 0},
    "tokenizer": {"vocabulary": 400},
    "in_process": {"step": "tokenizer", "vocabulary": 400, "sample_bytes": 2000},
    "drawn": {"step": "tokenizer", "vocabulary": 400, "sample_bytes": 2000, "ray_bytes": 1},
    "tokens": {"sample_tokens": 64},
    "pretrain": PRETRAIN,
    "tune": {"space": SPACE, "trials": 3, "max_steps": 4},
    "evaluate": {"models": ["pretrain"], "new_tokens": 4, "perplexity_samples": 4},
    "ray": {"cpus": 4},
}


def _publish_texts(recipe: Recipe) -> None:
    """The tasks' own words as the published splits."""
    items = tasks.tables(recipe.step("tasks"), recipe.seed)["train"]
    texts = [f"{item['instruction']} {item['output']}" for item in items]
    folder, entries = Path(recipe.root, "publish"), {}
    for number, split in enumerate(tokens.SPLITS):
        own = texts[number::3]
        path = folder / "data" / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {
            "id": [f"{i:05d}" for i in range(len(own))],
            "source": ["tasks"] * len(own),
            "text": own,
            "language": ["en"] * len(own),
        }
        repeats = [[("repeat", "3")] if split == "train" and i % REPEATED == 0 else [] for i in range(len(own))]
        metadata = pa.array(repeats, pa.map_(pa.string(), pa.string()))
        pq.write_table(pa.table(rows).append_column("metadata", metadata), path)
        entries[split] = stage.file_table(str(folder), [str(path)])
    manifest = stage.Manifest(stage="publish", version=1, attempt="a", fingerprint="f", config={}, tables=entries)
    (folder / "manifest.json").write_bytes(manifest.encoded())


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipe]:
    from ray_jobs import cluster
    from ray_jobs import tokens as tokens_job
    from training.context import Context
    from training.methods import pretrain

    made = Recipe("sweep.toml", str(tmp_path_factory.mktemp("sweep")), 1, TABLES)
    tasks.step(made)
    _publish_texts(made)
    tokenizer.make(made)
    tokens_job.step(made)
    pretrain.run(Context.single(made, "pretrain"))
    yield made
    cluster.stop()


@pytest.mark.e2e
def test_documents_are_tokenised_in_order_and_as_often_as_the_mixture_says(recipe: Recipe) -> None:
    manifest = stage.need_manifest(recipe.root, "tokens", "test")
    folder = str(Path(recipe.root, "tokens"))
    table = stage.need_manifest(recipe.root, "publish", "test").tables["train"]
    texts = pq.read_table(Path(recipe.root, "publish", table.files[0].path))["text"].to_pylist()
    wanted = [*texts, *texts[::REPEATED], *texts[::REPEATED]]
    stream = shards.open_split(folder, manifest.details, "train")["tasks"]
    found = tokenizer.load(tokenizer.path_of(recipe.root, "tokenizer", "test")).decode(
        stream.read(0, manifest.counts["train_tokens"]).tolist(), skip_special_tokens=False
    )
    assert found.split(chat.END_OF_TEXT)[:-1] == wanted
    assert manifest.counts["train_documents"] == len(wanted)


@pytest.mark.e2e
def test_a_sample_that_ray_draws_gives_the_same_vocabulary(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    from ray_jobs.tokenizer import drawn

    whole = tokenizer.make(recipe, "in_process", partial(drawn, recipe))
    with caplog.at_level("INFO", "millrace"):
        sampled = tokenizer.make(recipe, "drawn", partial(drawn, recipe))
    assert [record.args[0] for record in caplog.records if "drawn by Ray Data" in record.msg] == ["drawn"]
    assert sampled.counts == whole.counts
    assert 0 < sampled.counts["documents"] < 134
    assert sampled.tables["kept"].hash == whole.tables["kept"].hash
    folder = stage.folder_of(recipe.root, "publish")
    paths = stage.table_paths(folder, stage.need_manifest(recipe.root, "publish", "test"), "train")
    rows = list(drawn(recipe, paths, 2000))
    assert sampled.counts["documents"] <= len(rows) < 134, "the rest stays with the workers"


@pytest.mark.e2e
def test_a_sweep_publishes_its_trials_and_its_winner(recipe: Recipe) -> None:
    from ray_jobs import tune
    from training import tune as sweep

    before = (Path(recipe.root) / "pretrain" / "manifest.json").read_bytes()
    details = tune.step(recipe).details
    config = recipe.step("tune")
    assert [trial["config"] for trial in details["trials"]] == sweep.draw(config.space, 3, recipe.seed)
    assert all(trial["metric"] > 0 for trial in details["trials"])
    full = [trial for trial in details["trials"] if trial["steps"] == 4]
    assert details["best"]["metric"] == min(trial["metric"] for trial in full)
    assert (Path(recipe.root) / "pretrain" / "manifest.json").read_bytes() == before  # trials are no runs
    lines = next(Path(recipe.root).glob("tune/data/*/trials.jsonl")).read_text().splitlines()
    assert [json.loads(line) for line in lines] == details["trials"]
    assert tune.step(recipe).attempt == stage.need_manifest(recipe.root, "tune", "test").attempt


@pytest.mark.e2e
def test_bad_input_that_a_worker_finds_is_the_drivers_error(recipe: Recipe, tmp_path: Path) -> None:
    from ray_jobs import train

    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}\n{"messages": cut\n')
    tables = {"sft": {"data": [str(path)], "max_steps": 1}, "train": {"steps": ["sft"], "max_failures": 1}}
    spoilt = Recipe("sweep.toml", recipe.root, 1, recipe.tables | tables)
    with pytest.raises(UserError, match=r"chats\.jsonl:2: is not JSON"):
        train.step(spoilt)


@pytest.mark.e2e
def test_models_side_by_side_are_measured_as_in_one_process(recipe: Recipe) -> None:
    from ray_jobs import evaluate
    from training import evaluate as measure
    from training.context import Context

    details = evaluate.step(recipe).details["models"]["pretrain"]
    items = tasks.tables(recipe.step("tasks"), recipe.seed)["test"]
    alone, _ = measure.evaluated(Context.single(recipe, "evaluate"), "pretrain", items)
    assert details["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-2)
    assert details["tasks"]["greedy"]["accuracy"] == alone["tasks"]["greedy"]["accuracy"]
