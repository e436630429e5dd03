"""float8 is refused where it cannot be had; where it can, blocks multiply in it and learn as in bf16."""

import importlib.util

import pytest
import torch

from dataeng.cli import UserError
from tests.training.test_trainer import context_of, settings_of, steps_of
from tests.training.tools import publish_tokens, recipe_at
from training import float8, parallel, train, trainer
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights

SHAPE = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=16, ffn=64)


@pytest.fixture
def installed(monkeypatch):
    """torchao as if it were there (or not)."""
    there, real = [True], importlib.util.find_spec

    def find_spec(name, *more):
        return there[0] if name == "torchao" else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    return there


@pytest.mark.parametrize(
    ("there", "tables", "gpu", "said"),
    [
        (None, {}, (9, 0), "torchao is not installed: install it"),
        (True, {}, None, "needs a GPU with float8"),
        (True, {}, (8, 0), r"\(compute capability 8.0\) has no float8: set bf16"),
        (True, {"mesh": {"tensor": 2}}, (9, 0), "not with mesh.tensor = 2"),
        (True, {"step": "sft", "lora": {"rank": 16}}, (9, 0), "adapters beside frozen weights are trained in bf16"),
        (True, {}, (9, 0), None),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line(tmp_path, installed, monkeypatch, there, tables, gpu, said):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    name = tables.get("step", "pretrain")
    plain = recipe.tables["pretrain"] if name == "pretrain" else {}
    recipe.tables[name] = plain | tables | {"precision": "float8"}
    installed[0] = there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "A100")
    workers = recipe.step(name).mesh.tensor
    if said is None:
        train.check(recipe, [name], [workers])
        return
    with pytest.raises(UserError, match=said) as error:
        train.check(recipe, [name], [workers])
    assert "\n" not in str(error.value)
    assert f'test.toml: {name}.precision = "float8": ' in str(error.value)


def test_workers_with_gpus_of_their_own_look_themselves(tmp_path, installed):
    recipe = recipe_at(tmp_path)
    recipe.tables["train"] = {"gpus_per_worker": 1}
    settings = settings_of(precision="float8")
    float8.check(recipe, "pretrain", settings)
    context = context_of(tmp_path, settings)
    with pytest.raises(UserError, match="needs a GPU with float8"):
        parallel.build(context, lambda: Decoder(SHAPE, 50), settings, lambda made: init_weights(made, 0))


def test_blocks_are_converted_and_learn_as_in_bf16(tmp_path, monkeypatch):
    pytest.importorskip("torchao")
    convert = float8.convert
    monkeypatch.setattr(float8, "check_device", lambda where, device=None: None)
    monkeypatch.setattr(float8, "convert", lambda model: convert(model, emulate=True))

    def losses(precision):
        settings = settings_of(precision=precision, max_steps=20, learning_rate=3e-3)
        context, rows = context_of(tmp_path / precision, settings), []
        context.report = rows.append
        model = parallel.build(context, lambda: Decoder(SHAPE, 64), settings, lambda made: init_weights(made, 0))
        trainer.fit(context, model, steps_of(4), pretrain.loss, settings)
        return model, [row["loss"] for row in rows]

    plain, wanted = losses("bf16")
    model, found = losses("float8")
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    changed = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if "Float8" in type(part).__name__}
    assert changed == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert type(model.lm_head) is torch.nn.Linear
    assert found != wanted
    assert found[-1] == pytest.approx(wanted[-1], rel=0.02)
    assert found[-1] < found[0] - 0.3
