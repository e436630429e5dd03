"""What a run shows and survives: speed and memory in its rows, a profile of chosen steps, trackers, fp16's scale."""

import gzip
import importlib.machinery
import importlib.util
import json
import math
import re
import shutil
import signal
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from tests.training.test_trainer import context_of, model_of, settings_of, steps_of
from training import flops, trainer
from training.methods import pretrain
from training.scaling import LossScale
from training.settings import TrainerConfig
from training.stop import Stop


def rows_of(tmp_path, **more):
    settings = settings_of(**more)
    context, rows = context_of(tmp_path, settings), []
    context.report = rows.append
    model = model_of(context, settings)
    result = trainer.fit(context, model, steps_of(4), pretrain.loss, settings)
    return rows, result, context, model


def test_rows_tell_speed_memory_and_flops(tmp_path):
    rows, _, _, model = rows_of(tmp_path)
    row = rows[-1]
    assert row["memory_bytes"] > 1 << 20
    assert row["tokens_per_second"] == pytest.approx(8 * 16 / row["seconds"])
    assert row["tflops_per_worker"] == pytest.approx(row["tokens_per_second"] * flops.per_token(model, 16) / 1e12)
    assert "mfu" not in row, "no peak is known for this processor"


def test_the_wait_for_data_is_measured_and_said(tmp_path, caplog):
    settings = settings_of(max_steps=3)
    context, rows = context_of(tmp_path, settings), []
    context.report = rows.append
    plain = steps_of(4)

    def slow(position):
        for step in plain(position):
            time.sleep(0.2)
            yield step

    with caplog.at_level("INFO", "millrace"):
        trainer.fit(context, model_of(context, settings), slow, pretrain.loss, settings)
    assert all(row["data_wait"] >= 0.2 for row in rows)
    wait, updates = rows[-1]["data_wait"], rows[-1]["seconds"]
    assert f"data wait {wait / (wait + updates):.1%}" in caplog.text
    [(said, share)] = re.findall(r"([\d.]+) s \(([\d.]+) %\) waiting for data", caplog.text)
    assert float(said) == pytest.approx(sum(row["data_wait"] for row in rows), abs=0.06)
    assert float(share) > 10


def test_chosen_steps_are_profiled(tmp_path):
    _, _, context, _ = rows_of(tmp_path, max_steps=4, profile=(2, 3))
    [path] = Path(context.folder, "profile").iterdir()
    assert path.name == "steps-2-3-process-0.json.gz"
    names = {event.get("name") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]}
    assert "aten::mm" in names
    with pytest.raises(ValueError, match="must be a first and a last step"):
        TrainerConfig(profile=(3, 2))


def test_fp16_learns_like_fp32_and_its_scale_falls_at_an_overflow(tmp_path):
    exact, _, _, _ = rows_of(tmp_path / "a", max_steps=8)
    rows, result, _, _ = rows_of(tmp_path / "b", max_steps=8, precision="fp16")
    assert result.skipped == 0
    assert rows[-1]["loss"] == pytest.approx(exact[-1]["loss"], rel=0.02)

    settings = settings_of(precision="fp16", max_steps=3, nonfinite_limit=0)
    context = context_of(tmp_path / "c", settings)
    bad = iter([True, True] + 10 * [False])  # an overflow is no failure: the scale was too large

    def loss(model, batch):
        total, weight, logged = pretrain.loss(model, batch)
        return (total * math.inf if next(bad) else total), weight, logged

    made = trainer.fit(context, model_of(context, settings), steps_of(8), loss, settings)
    assert (made.step, made.skipped) == (3, 0)


def test_the_scale_halves_doubles_and_goes_on():
    scale = LossScale("fp16")
    assert scale.after(finite=False)
    assert scale.value == 2.0**15
    for _ in range(2000):
        assert scale.after(finite=True)
    assert scale.value == 2.0**16
    scale.value = 1.0
    assert not scale.after(finite=False), "at 1 it is no longer the scale"
    other = LossScale("fp16")
    other.load(scale.state())
    assert other.value == 1.0
    plain = LossScale("bf16")
    assert (plain.value, plain.after(True), plain.after(False)) == (1.0, True, False)


def test_unscaling_is_exact():
    model = torch.nn.Linear(3, 3)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.3) * 2.0**16
    LossScale("fp16").unscale(model)
    assert all(bool((parameter.grad == torch.tensor(0.3)).all()) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("package", "environment"), [("wandb", {"WANDB_MODE": "offline"}), ("mlflow", {"MLFLOW_TRACKING_URI": "sqlite"})]
)
def test_trackers_get_the_rows_or_are_said_to_be_missing(tmp_path, monkeypatch, caplog, package, environment):
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, f"sqlite:///{tmp_path}/runs.db" if value == "sqlite" else value)
    with caplog.at_level("INFO", "millrace"):
        rows, _, _, _ = rows_of(tmp_path)
    if importlib.util.find_spec(package) is None:
        assert f"the package {package} is not installed" in caplog.text
    elif package == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*"))
    else:
        import mlflow

        [run] = mlflow.search_runs(search_all_experiments=True, output_format="list")
        assert run.data.metrics["loss"] == pytest.approx(rows[-1]["loss"])


@pytest.mark.parametrize("compiled", [False, True])
def test_z_loss_adds_the_square_of_the_logarithm_of_the_sum(compiled):
    if compiled and shutil.which("g++") is None:
        pytest.skip("compiling needs g++")

    class Fixed(torch.nn.Module):
        def forward(self, tokens_BL, positions_BL=None, segments_BL=None):
            return torch.zeros(*tokens_BL.shape, 4)

    batch = {"tokens": torch.zeros(1, 3, dtype=torch.long), "targets": torch.tensor([[1, 2, -100]])}
    total, weight, logged = pretrain.loss(Fixed(), batch, 0.5, compiled)
    assert float(total) == pytest.approx(2 * math.log(4) + 0.5 * 2 * math.log(4) ** 2)
    assert (float(weight), float(logged["cross_entropy"])) == (2, pytest.approx(2 * math.log(4)))


def board_of(context):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(Path(context.folder, "tensorboard")), size_guidance={"scalars": 0})
    found.Reload()
    return found


def test_what_a_checkpoint_cost_stands_in_the_row_after_it(tmp_path):
    rows, _, context, _ = rows_of(tmp_path, max_steps=4, checkpoint_every=2)
    stalls = [row["checkpoint_stall"] for row in rows]
    assert stalls[2] > 0
    assert [stalls[index] for index in (0, 1, 3)] == [0, 0, 0]
    assert [event.value for event in board_of(context).Scalars("checkpoint_stall")] == pytest.approx(stalls)


def test_a_run_that_ends_badly_leaves_its_rows_and_tensorboards(tmp_path):
    settings = settings_of(max_steps=9)
    context = context_of(tmp_path, settings)

    def broken(position):
        for step in steps_of(4)(position):
            if position == 5:
                raise OSError("the shards went away")
            yield step
            position += 1

    with pytest.raises(OSError, match="went away"):
        trainer.fit(context, model_of(context, settings), broken, pretrain.loss, settings)
    lines = Path(context.folder, "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [event.step for event in board_of(context).Scalars("loss")] == [1, 2, 3, 4, 5]


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(tmp_path, monkeypatch, caplog):
    sent = []

    def fake(context):
        def send(row, step):
            if step == 2:
                raise ConnectionError("the server is gone")
            sent.append(step)

        def end():
            raise ConnectionError("still gone")

        return send, end

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    there = types.ModuleType("mlflow")
    there.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow", there)
    monkeypatch.setattr("training.trackers._mlflow", fake)
    with caplog.at_level("INFO", "millrace"):
        rows, _, _, _ = rows_of(tmp_path, max_steps=4)
    assert (sent, len(rows)) == ([1], 4)
    assert "mlflow takes no more rows from step 2 on" in caplog.text
    assert "mlflow could not be closed" in caplog.text


def test_signals_that_come_together_are_one_wish():
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        with Stop() as stop:
            for _ in range(3):
                signal.raise_signal(signal.SIGTERM)
            assert stop.asked
            assert not got
            stop.held.asked_at -= 60
            signal.raise_signal(signal.SIGTERM)
        assert len(got) == 1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_rows_outlive_another_start_of_the_same_run_and_a_folder_that_is_taken_away(tmp_path, caplog):
    settings = settings_of(max_steps=6, checkpoint_every=5)
    context = context_of(tmp_path, settings)
    own = Path(context.folder, "checkpoints/test/metrics-6.jsonl")

    def disturbed(position):
        for step in steps_of(4)(position):
            position += 1
            if position == 4:
                for path in (own, Path(context.folder, "metrics.jsonl")):
                    path.unlink()
                    path.write_text("another's\n")
            yield step

    trainer.fit(context, model_of(context, settings), disturbed, pretrain.loss, settings)
    for path in (own, Path(context.folder, "metrics.jsonl")):
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in board_of(context).Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_a_board_that_cannot_be_written_does_not_end_training(tmp_path, caplog, monkeypatch):
    def broken(self, row):
        raise OSError("stale file handle")

    monkeypatch.setattr("training.board.Board._write", broken)
    with caplog.at_level("INFO", "millrace"):
        rows, _, _, _ = rows_of(tmp_path, max_steps=4)
    assert len(rows) == 4
    assert caplog.text.count("TensorBoard's files take no more rows") == 1
