"""FSDP over gloo: sums by parts are sums, and weights gathered in bf16 learn what those of one process do."""

import json
import os

import pytest
import torch
from torch import distributed as dist

from tests.training.test_layouts import SHAPE, steps_of
from tests.training.tools import recipe_at, start_ranks
from training import parallel, trainer
from training.context import Context
from training.exchange import SumOfParts
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import TrainerConfig

WORLD = 2


def made_of(root, process):
    """Losses in bf16 of one process or of each of two; the types of weights and gradients, as two have them."""
    settings = TrainerConfig(
        max_steps=20, batch=8, learning_rate=1e-2, precision="bf16", clip=0.5, checkpoint_every=1000
    )
    context = Context.distributed(recipe_at(root), "pretrain")
    context.config, context.checkpoint_fingerprint = settings, "bf16"
    model = parallel.build(
        context, lambda: Decoder(ModelConfig(**SHAPE), 50), settings, lambda made: init_weights(made, 0)
    )
    rows, kinds = [], set()
    context.report = rows.append
    if process is not None:  # by a hook, while the unit has them in full
        layer = model.layers[0].mlp.up_proj
        layer.register_forward_pre_hook(lambda module, _: kinds.add(str(module.weight.dtype)))
    trainer.fit(context, model, steps_of(context, False), pretrain.loss, settings)
    own = {str(parameter.dtype) for parameter in model.parameters()}
    return {"losses": [row["loss"] for row in rows], "gathered": sorted(kinds), "kept": sorted(own)}


def _child(process, root):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=process, world_size=WORLD)
    own = torch.arange(6.0) * 10**process
    for op, factor in ((dist.ReduceOp.SUM, 1), (dist.ReduceOp.AVG, 1 / WORLD)):
        found = torch.empty(3)
        SumOfParts()(found, own, dist.group.WORLD, op)
        expected = torch.arange(6.0).view(WORLD, 3)[process] * 11 * factor
        assert torch.equal(found, expected), (op, found, expected)
    found = made_of(root, process)
    if process == 0:
        with open(os.path.join(root, "found.json"), "w") as file:
            json.dump(found, file)
    dist.destroy_process_group()


def test_two_processes_gather_in_bf16_and_learn_as_one(tmp_path):
    start_ranks(_child, (str(tmp_path),), WORLD)
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["gathered"], found["kept"]) == (["torch.bfloat16"], ["torch.float32"])
    alone = made_of(str(tmp_path / "alone"), None)
    assert found["losses"] == pytest.approx(alone["losses"], rel=0.01)
    assert alone["losses"][-1] < 0.9 * alone["losses"][0]
