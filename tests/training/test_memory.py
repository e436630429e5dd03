"""What a step needs: exact counts, shares by worker, and an estimate that a real step bears out."""

import json

import pytest

from dataeng.cli import UserError
from dataeng.recipe import Recipe
from training import flops, memory
from training.families import config_json
from training.methods.pretrain import Config
from training.model.assemble import assemble
from training.model.config import ModelConfig

SHAPE = {"layers": 2, "width": 128, "heads": 4, "kv_heads": 2, "context": 256, "ffn": 256}


def config_of(**more):
    return Config(**({"model": SHAPE, "micro_batch": 8, "precision": "fp32", "optimizer": "adamw"} | more))


def test_flops_count_matrix_products_the_head_and_causal_attention():
    block = 128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256
    model = assemble(ModelConfig(**SHAPE, tied=True), 500)
    assert flops.matrix_parameters(model) == 2 * block + 500 * 128
    assert flops.per_token(model, 256) == 6 * (2 * block + 500 * 128) + 6 * 2 * 128 * 256
    assert flops.per_token(model, 256, full_form=True) - flops.per_token(model, 256) == 6 * 2 * 128 * 256
    untied = assemble(ModelConfig(**SHAPE, tied=False), 500)
    assert flops.per_token(untied, 256) == flops.per_token(model, 256)


def test_workers_share_weights_gradients_and_state_by_the_mesh():
    alone = memory.need(config_of(), 500, 1, 64)
    assert alone.parameters == ModelConfig(**SHAPE).parameters(500)
    assert (alone.weights, alone.optimizer, alone.gathered) == (4 * alone.parameters, 8 * alone.parameters, 0)
    eight = memory.need(config_of(mesh={"replicate": 2, "tensor": 2}), 500, 8, 64)
    assert eight.weights == alone.weights // 4
    assert eight.activations == alone.activations // 2
    assert eight.gathered > 0
    with pytest.raises(UserError, match="do not multiply to 6 workers"):
        memory.need(config_of(mesh={"tensor": 4}), 500, 6, 64)


def test_recomputing_takes_less_memory_and_muon_less_state():
    plain, less = (memory.need(config_of(recompute=mode), 500, 1, 128) for mode in ("none", "full"))
    assert less.activations < 0.6 * plain.activations
    assert memory.need(config_of(optimizer="muon"), 500, 1, 64).optimizer < plain.optimizer


def test_a_real_step_bears_the_estimate_out():
    config = config_of(micro_batch=32)
    estimate = memory.need(config, 2000, 1, 256).total
    assert 0.7 < memory.measured(config, 2000, 256) / estimate < 1.6


def test_the_command_prints_a_recipe_and_refuses_another_step():
    tables = {"pretrain": {"model": SHAPE}, "memory": {"gpus": 2}, "sft": {"model": "pretrain", "data": "tasks"}}
    text = memory.report(Recipe("r.toml", "runs/none", 0, tables))
    assert "on 2 GPUs" in text
    assert "FLOPs a token" in text
    with pytest.raises(UserError, match=r"memory\.target = 'sft': name a table of pretraining"):
        memory.report(Recipe("r.toml", "runs/none", 0, tables | {"memory": {"target": "sft"}}))


def test_rows_are_counted_as_the_trainer_takes_them():
    def report(**more):
        table = {"micro_batch": 2, "batch": 2, "model": SHAPE} | more
        return memory.report(Recipe("r.toml", "runs/none", 0, {"tokens": {"sample_tokens": 256}, "pretrain": table}))

    assert "activations of 2 rows of 256 tokens" in report()
    assert "activations of 16 rows of 32 tokens" in report(row_tokens=32)
    assert "activations of 2 rows of 256 tokens" in report(row_tokens=32, row_schedule=[[5, 256]])


def test_an_encoder_decoder_and_a_folder_to_start_from_are_looked_at(tmp_path):
    sided = {"model": {"kind": "encoder_decoder", "layers": 1, "width": 32, "heads": 4, "context": 64}}
    tables = {"tokens": {"sample_tokens": 64}, "pretrain": sided, "memory": {"vocabulary": 90, "check": True}}
    shape = ModelConfig(**sided["model"])
    assert f"{shape.parameters(90):,} parameters" in memory.report(Recipe("r.toml", "runs/none", 0, tables))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_json(ModelConfig(**SHAPE), 77, {"end": 0, "pad": 1})))
    tables = {"tokens": {"sample_tokens": 64}, "pretrain": {"start": str(folder)}}
    report = memory.report(Recipe("r.toml", "runs/none", 0, tables))
    assert f"{ModelConfig(**SHAPE).parameters(77):,} parameters, vocabulary 77" in report
