"""One model, any layout of processes: the losses of one process, with unequal token counts and clipping."""

import json
import math
import os

import pytest
import torch
from torch import distributed as dist

from dataeng.cli import UserError
from tests.training.test_trainer import unequal_rows
from tests.training.tools import recipe_at, start_ranks
from training import parallel, trainer
from training.context import Context
from training.data.order import rank_share
from training.methods import pretrain
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.settings import Mesh, TrainerConfig

SHAPE = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "context": 32, "ffn": 64}
STEPS = 20
# Tests that share processes: starting them costs most.
TWO = {
    "shard": {},
    "tensor-untied": {"mesh": {"tensor": 2}, "tied": False},
    "tensor-ungated-biased": {"mesh": {"tensor": 2}, "shape": {"activation": "gelu", "bias": True, "norm": "layer"}},
    "tensor-qk-norm-wide": {"mesh": {"tensor": 2}, "shape": {"qk_norm": True, "head_size": 16, "kv_heads": 4}},
    "muon-recompute": {"optimizer": "muon", "recompute": "full"},
    "context": {"mesh": {"context": 2}, "packed": True},
    "pipeline": {"mesh": {"pipeline": 2}, "packed": True},
    "pipeline-untied-recompute": {"mesh": {"pipeline": 2}, "tied": False, "recompute": "full"},
    "pipeline-muon": {"mesh": {"pipeline": 2}, "optimizer": "muon"},
    "pipeline-one-micro-batch": {"mesh": {"pipeline": 2}, "size": 8},
}
THREE = {"shard-3": {}, "lamb-3": {"optimizer": "lamb"}}
FOUR = {
    "shard-4": {},
    "tensor-4": {"mesh": {"tensor": 4}, "shape": {"kv_heads": 4}},
    "context-4": {"mesh": {"context": 4}, "packed": True},
    "hybrid": {"mesh": {"replicate": 2}, "recompute": "selective"},
    "tensor-and-shard": {"mesh": {"tensor": 2}},
    "context-and-tensor": {"mesh": {"tensor": 2, "context": 2}},
    "context-and-shard": {"mesh": {"context": 2}, "packed": True},
    "tensor-muon": {"mesh": {"tensor": 2}, "optimizer": "muon"},
    "pipeline-and-shard": {"mesh": {"pipeline": 2}, "packed": True, "layers": 4, "by_block": True},
    "pipeline-and-tensor": {"mesh": {"pipeline": 2, "tensor": 2}},
    "pipeline-of-four": {"mesh": {"pipeline": 4}, "layers": 5, "packed": True},
    "pipeline-and-context": {"mesh": {"pipeline": 2, "context": 2}, "packed": True},
}
ALL = {name: (world, case) for world, cases in ((2, TWO), (3, THREE), (4, FOUR)) for name, case in cases.items()}


def settings_of(case):
    values = {"max_steps": STEPS, "batch": 8, "learning_rate": 1e-2, "precision": "fp32", "clip": 0.5}
    more = {name: case[name] for name in ("mesh", "optimizer", "recompute") if name in case}
    return TrainerConfig(**values, checkpoint_every=1000, **more)


def steps_of(context, packed, size=2):
    """Each rank's part of eight rows (of two documents each, if packed) in micro-batches of two, as many a rank."""
    tokens, targets = unequal_rows()
    weight = float((targets != -100).sum())
    mine = list(rank_share(0, len(tokens), context.rank, context.world))
    count = math.ceil(math.ceil(len(tokens) / context.world) / size)
    blank = {"tokens": tokens[:1].clone(), "targets": torch.full_like(targets[:1], -100)}
    rows = [{"tokens": tokens[at : at + 1], "targets": targets[at : at + 1]} for at in mine]
    if packed:
        places = torch.arange(tokens.shape[1])[None]
        documents = {"segments": 1 + (places >= 7).long(), "positions": torch.where(places >= 7, places - 7, places)}
        rows, blank = [row | documents for row in rows], blank | documents
    rows += [blank] * (count * size - len(rows))

    def batches(position):
        while True:
            micro = [
                {key: torch.cat([row[key] for row in rows[at : at + size]]) for key in rows[0]}
                for at in range(0, count * size, size)
            ]
            position += len(tokens)
            yield trainer.Step(micro, weight, position)

    return batches


def losses(root, name, case):
    """The losses and norms of 20 steps."""
    settings = settings_of(case)
    context = Context.distributed(recipe_at(root, mesh=case.get("mesh", {})), "pretrain")
    context.config, context.checkpoint_fingerprint = settings, name
    shape = ModelConfig(
        **SHAPE | {"layers": case.get("layers", 2), "tied": case.get("tied", True)} | case.get("shape", {})
    )
    model = parallel.build(context, lambda: Decoder(shape, 50), settings, lambda made: init_weights(made, 0))
    rows = []
    context.report = rows.append
    trainer.fit(
        context, model, steps_of(context, case.get("packed", False), case.get("size", 2)), pretrain.loss, settings
    )
    return [(row["loss"], row["norm"]) for row in rows]


def _child(process, root, world, cases):
    torch.set_num_threads(1)
    small = parallel.SMALL
    store = f"file://{root}/store-{world}"
    dist.init_process_group("gloo", init_method=store, rank=process, world_size=world)
    for name, case in cases.items():
        parallel.SMALL = 0 if case.get("by_block") else small  # FSDP gathers each block on its own
        try:
            found = losses(root, name, case)
        except Exception as error:
            raise RuntimeError(name) from error
        if process == 0:
            with open(os.path.join(root, f"{name}.json"), "w") as file:
                json.dump(found, file)
        dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("layouts"))
    for world, cases in ((2, TWO), (3, THREE), (4, FOUR)):
        start_ranks(_child, (root, world, cases), world)
    return root


@pytest.mark.parametrize("name", ALL)
def test_any_layout_gives_the_losses_of_one_process(found, name, tmp_path):
    _, case = ALL[name]
    alone = {key: value for key, value in case.items() if key in ("optimizer", "tied", "shape", "packed", "layers")}
    expected = torch.tensor(losses(str(tmp_path), "single", alone))
    with open(os.path.join(found, f"{name}.json")) as file:
        made = torch.tensor(json.load(file))
    assert len(made) == STEPS
    assert float(expected[0, 1]) > 0.5, "the gradient is clipped"
    torch.testing.assert_close(made[:, 0], expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(made[:, 1], expected[:, 1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("mesh", "workers", "shape"),
    [
        ({}, 3, (1, 3, 1)),
        ({"replicate": 2, "tensor": 2}, 8, (2, 2, 2)),
        ({"context": 2, "shard": 2}, 4, (1, 4, 1)),
        ({"pipeline": 2, "tensor": 2}, 8, (1, 2, 2)),
    ],
)
def test_the_mesh_takes_all_workers(mesh, workers, shape):
    assert Mesh(**mesh).shape(workers) == shape


@pytest.mark.parametrize(
    ("mesh", "workers"), [({"tensor": 2}, 3), ({"shard": 2}, 3), ({"replicate": 4}, 2), ({"pipeline": 2}, 3)]
)
def test_a_mesh_that_does_not_multiply_to_the_workers_is_a_mistake(mesh, workers):
    with pytest.raises(UserError, match=f"do not multiply to {workers} workers"):
        Mesh(**mesh).shape(workers)


@pytest.mark.parametrize(
    ("mesh", "model", "row", "said"),
    [
        ({"tensor": 3}, {}, 24, "must divide the model's heads = 4"),
        ({"tensor": 4}, {}, 24, "must divide the model's kv_heads = 2"),
        ({"tensor": 2}, {"positions": "learned"}, 24, "learned positions are not split"),
        ({"context": 2}, {}, 26, "rows of 26 tokens cannot be cut into 4 pieces"),
        ({"pipeline": 3}, {}, 24, "pipeline = 3: at most one stage for each of the model's layers = 2"),
        ({"pipeline": 2}, {"kind": "encoder"}, 24, "stages are of decoders: this is an encoder"),
    ],
)
def test_what_cannot_be_split_is_told_before_workers_start(mesh, model, row, said):
    with pytest.raises(UserError, match=said):
        Mesh(**mesh).check(ModelConfig(**(SHAPE | model)), row, "r.toml: pretrain")
    Mesh().check(ModelConfig(**(SHAPE | model)), row, "r.toml: pretrain")
