"""The way from captures to a model with everything on S3 (MinIO): Spark by s3a, Ray and boto3 on the same root."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dataeng import s3, stage, storage
from tests.training.tools import publish_tokens, recipe_at

sys.path.insert(0, str(Path(__file__).parent))
import captures

pytestmark = pytest.mark.e2e
BUCKET = "corpus"
DATA_STEPS = ("extract", "filter", "decontaminate", "dedup", "publish")
RECIPE = """
root = "{root}"
[spark]
master = "local[2]"
driver_memory = "1g"
partitions = 2
[extract]
input = ["{captures}"]
[filter]
rules = ["language", "personal_data"]
[decontaminate]
sets = []
[dedup]
[publish]
validation = 0.1
test = 0.1
[tokenizer]
vocabulary = 512
[tokens]
sample_tokens = 64
[ray]
object_store_bytes = 100000000
[train]
steps = ["pretrain"]
workers = 1
[pretrain]
max_steps = 3
batch = 4
micro_batch = 4
checkpoint_every = 2
[pretrain.model]
layers = 1
width = 32
heads = 2
kv_heads = 2
context = 64
"""
# Runs a job as its command does, and says which jars its JVM had.
SHOW_JARS = """
import runpy, sys
from spark_jobs import session
stop = session.Engine.stop
def show(self):
    if self._session is not None:
        jars = self._session.sparkContext._jsc.sc().listJars()
        print("JARS", *(str(jars.apply(i)).rpartition("/")[2] for i in range(jars.size())))
    stop(self)
session.Engine.stop = show
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

Call = Callable[..., subprocess.CompletedProcess[str]]


@dataclass
class World:
    """A MinIO with captures in a bucket, and recipes that read them from there and from the disk."""

    recipe: str
    local_recipe: str
    root: str
    environment: dict[str, str]

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command of the house with the keys in its environment."""
        every = os.environ | self.environment | environment
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=every)


@pytest.fixture(scope="module")
def world(minio: dict[str, str], tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("s3")
    paths = captures.write(folder / "captures", files=2, pages=60)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo)
        for key, value in minio.items():
            patch.setenv(key, value)
        s3._client.cache_clear()
        s3.client().create_bucket(Bucket=BUCKET)
        for path in paths:
            storage.upload(path, f"s3://{BUCKET}/captures/{path.name}")
        root = f"s3://{BUCKET}/run"
        recipe, local = folder / "s3.toml", folder / "local.toml"
        recipe.write_text(RECIPE.format(root=root, captures=f"s3://{BUCKET}/captures/*.warc.gz"))
        local.write_text(RECIPE.format(root=folder / "run", captures=folder / "captures" / "*.warc.gz"))
        yield World(str(recipe), str(local), root, minio)
    s3._client.cache_clear()


@pytest.fixture(scope="module")
def data(world: World) -> subprocess.CompletedProcess[str]:
    """The data pipeline's run on S3."""
    done = world.call("-c", SHOW_JARS, "spark_jobs/pipeline.py", world.recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_without_the_committers_classes_no_job_starts(world: World) -> None:
    done = world.call("spark_jobs/extract.py", world.recipe, "spark.packages=false", f"root={world.root}-refused")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "is missing, so output on s3:// could be lost" in done.stderr.splitlines()[-1]
    assert storage.list_files(f"{world.root}-refused") == []


def test_mistakes_are_one_line_and_start_no_java(world: World) -> None:
    no_java = {"JAVA_HOME": "/nonexistent"}
    job = ("spark_jobs/extract.py", world.recipe)
    absent = world.call(*job, 'extract.input=["s3://absent/*.warc.gz"]', **no_java)
    assert absent.returncode == 2
    assert "there is no such bucket" in absent.stderr
    empty = world.call(*job, f'extract.input=["s3://{BUCKET}/empty/*.warc.gz"]', **no_java)
    assert empty.returncode == 2
    assert "no such file, or nothing there to read" in empty.stderr
    refused = world.call(*job, AWS_SECRET_ACCESS_KEY="wrong", **no_java)
    assert refused.returncode == 2
    assert "access denied" in refused.stderr
    nobody = world.call(*job, AWS_ENDPOINT_URL="http://127.0.0.1:9", **no_java)
    assert nobody.returncode == 2
    assert "the object store does not answer" in nobody.stderr
    for done in (absent, empty, refused, nobody):
        assert done.stderr.count("\n") == 1, done.stderr


def test_spark_brings_four_artefacts_and_no_more(data: subprocess.CompletedProcess[str]) -> None:
    from spark_jobs.session import S3_PACKAGES

    (line,) = [line for line in data.stdout.splitlines() if line.startswith("JARS")]
    wanted = {"{}_{}-{}.jar".format(*name.split(":")) for name in S3_PACKAGES}
    assert set(line.split()[1:]) == wanted
    assert len(wanted) == 4


def test_every_stage_was_written_through_the_magic_committer(
    world: World, data: subprocess.CompletedProcess[str]
) -> None:
    successes = [entry.path for entry in storage.list_files(world.root) if entry.path.endswith("/_SUCCESS")]
    assert len(successes) >= len(DATA_STEPS)
    for path in successes:
        assert json.loads(storage.read_bytes(path))["committer"] == "magic"
    assert not s3.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    for name in DATA_STEPS:
        assert stage.verify(world.root, name) == []
    assert stage.need_manifest(world.root, "extract", "test").counts["in"] == 120


def test_finished_work_starts_no_java(world: World, data: subprocess.CompletedProcess[str]) -> None:
    again = world.call("spark_jobs/pipeline.py", world.recipe, JAVA_HOME="/nonexistent")
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stderr.count("done already") == len(DATA_STEPS)


def test_hashes_on_s3_are_those_on_disk(world: World, data: subprocess.CompletedProcess[str]) -> None:
    local = world.call("spark_jobs/pipeline.py", world.local_recipe)
    assert local.returncode == 0, local.stderr[-3000:]
    root = str(Path(world.local_recipe).parent / "run")
    for name in DATA_STEPS:
        here, there = (stage.need_manifest(place, name, "test") for place in (root, world.root))
        assert {t: entry.hash for t, entry in here.tables.items()} == {t: e.hash for t, e in there.tables.items()}, name
        assert here.counts == there.counts


def test_ray_tokenizes_and_trains_on_the_same_root(world: World, data: subprocess.CompletedProcess[str]) -> None:
    for script in ("tokenizer", "tokens", "train"):
        done = world.call(f"ray_jobs/{script}.py", world.recipe)
        assert done.returncode == 0, f"{script}: {done.stderr[-3000:]}"
    tokens = stage.need_manifest(world.root, "tokens", "test")
    assert sum(len(table.files) for table in tokens.tables.values()) >= 2
    for name in ("tokenizer", "tokens", "pretrain"):
        assert stage.verify(world.root, name) == []
    kept = [entry.path for entry in storage.list_files(f"{world.root}/pretrain/checkpoints")]
    assert [path for path in kept if path.endswith("manifest.json")]
    assert [path for path in kept if path.endswith(".distcp")]
    exported = {path.rpartition("/")[2] for path in (e.path for e in storage.list_files(f"{world.root}/pretrain"))}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= exported
    again = world.call("ray_jobs/train.py", world.recipe)
    assert again.returncode == 0
    assert "done already" in again.stderr


def test_damaged_checkpoints_fall_back_and_no_temporary_file_stays(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataeng.cli import Stopped
    from training.context import Context
    from training.methods import pretrain

    publish_tokens(recipe_at(tmp_path))
    root = f"s3://{BUCKET}/damaged"
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        storage.upload(file, f"{root}/{file.relative_to(tmp_path)}")
    before = set(Path(tempfile.gettempdir()).glob("millrace-checkpoint-*"))
    recipe = recipe_at(Path(root), keep=3)
    recipe = dataclasses.replace(recipe, root=root)
    context = Context.single(recipe, "pretrain")
    wishes = iter([None, None, None, None, "stop"])
    context.notice = lambda: next(wishes)
    monkeypatch.setattr("training.stop.LOOK_EVERY_SECONDS", 0.0)
    with pytest.raises(Stopped):
        pretrain.run(context)
    listed = storage.list_files(f"{root}/pretrain/checkpoints")
    _, *newer = [entry.path for entry in listed if entry.path.endswith("manifest.json")]
    damages = (lambda data: data[:-1], lambda data: data[:999] + bytes([data[999] ^ 1]) + data[1000:])
    for manifest, damage in zip(newer, damages, strict=True):
        attempt = json.loads(storage.read_bytes(manifest))["attempt"]
        shard = f"{manifest.rpartition('/')[0]}/{attempt}/__0_0.distcp"
        storage.write_bytes(shard, damage(storage.read_bytes(shard)))
    pretrain.run(Context.single(recipe, "pretrain"))
    assert stage.need_manifest(root, "pretrain", "test").details["resumed_from"] == 2
    pretrain.run(Context.single(recipe_at(tmp_path), "pretrain"))
    here, there = (storage.read_bytes(f"{place}/pretrain/metrics.jsonl").splitlines() for place in (tmp_path, root))
    assert [json.loads(line)["loss"] for line in here] == [json.loads(line)["loss"] for line in there]
    assert set(Path(tempfile.gettempdir()).glob("millrace-checkpoint-*")) == before
