import json
from pathlib import Path

import pytest
import torch

from dataeng import stage
from dataeng.cli import UserError
from training import huggingface, posttrain
from training.context import Context
from training.data.examples import Example, collate, encode_examples
from training.methods import sft
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.trainer import TrainingFailed

CONFIG = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=64)


def some_examples():
    generator = torch.Generator().manual_seed(3)
    lengths = (5, 17, 9, 30, 3, 12, 8, 21)
    ids = [torch.randint(2, 60, (length,), generator=generator).tolist() for length in lengths]
    return [Example(one, [place >= len(one) // 2 for place in range(len(one))]) for one in ids]


def gradients(model, batches):
    model.zero_grad()
    totals = [sft.loss(model, batch)[:2] for batch in batches]
    total, weight = (sum(part) for part in zip(*totals, strict=True))
    (total / weight).backward()
    return total / weight, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.fixture
def model():
    made = Decoder(CONFIG, 60)
    init_weights(made, 1)
    return made


def single(recipe, name="sft"):
    return Context.single(recipe, name)


def test_packing_changes_neither_loss_nor_gradients(model):
    examples = some_examples()
    plain = collate(examples, [[index] for index in range(8)], 30, 1, 8)
    loss, wanted = gradients(model, [plain])
    for width, micro in ((64, 8), (32, 2), (40, 1)):
        context = Context(None, "sft", None)
        step = sft.global_step(context, examples, width, 1, micro, 0)
        assert step.weight == sum(sum(example.mask) for example in examples)
        packed_loss, found = gradients(model, step.micro)
        assert packed_loss.item() == pytest.approx(loss.item(), abs=1e-6)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_rank_has_as_many_micro_batches_and_no_example_is_lost_or_doubled(world):
    examples, rows = some_examples(), []
    steps = [
        sft.global_step(Context(None, "sft", None, rank=rank, world=world), examples, 32, 1, 2, 7)
        for rank in range(world)
    ]
    assert len({len(step.micro) for step in steps}) == 1
    assert len({batch["tokens"].shape for step in steps for batch in step.micro}) == 1
    assert sum(float(batch["mask"].sum()) for step in steps for batch in step.micro) == steps[0].weight
    for step in steps:
        for batch in step.micro:
            for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
                rows += [tokens[segments == s].tolist() for s in range(1, int(segments.max()) + 1)]
    assert sorted(rows) == sorted(example.ids for example in examples)


def test_what_the_loss_counts_is_the_answer_and_its_end(small):
    messages = [{"role": "user", "content": "Copy: red"}, {"role": "assistant", "content": "red car"}]
    [example], longer = encode_examples(small, [messages], 64)
    batch = collate([example], [[0]], 32, 1, 1)
    counted = batch["targets"][0][batch["mask"][0]].tolist()
    assert small.decode(counted, skip_special_tokens=False) == " red car<|end|>"
    assert longer == 0


def test_the_gradient_comes_from_answers_alone(model):
    examples = some_examples()
    batch = collate(examples, [[index] for index in range(8)], 30, 1, 8)
    changed = {**batch, "targets": torch.where(batch["mask"], batch["targets"], 7)}
    assert sft.loss(model, batch)[0].item() == sft.loss(model, changed)[0].item()


def test_fine_tuning_learns_publishes_and_is_done_once(root):
    recipe = root(sft={"max_steps": 12, "learning_rate": 1e-2, "batch": 16})
    sft.check(recipe, "sft")
    sft.run(single(recipe))
    manifest = stage.need_manifest(recipe.root, "sft", "test")
    losses = [json.loads(line)["loss"] for line in Path(recipe.root, "sft/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]
    assert manifest.counts["samples"] == 12 * 16
    sft.run(single(recipe))
    assert stage.need_manifest(recipe.root, "sft", "test").attempt == manifest.attempt


def test_adapters_export_merged_and_alone(root):
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    recipe = root(sft={"learning_rate": 1e-2, "lora": lora})
    sft.run(single(recipe))
    folder = f"{recipe.root}/sft/export"
    before, after = huggingface.state_of(f"{recipe.root}/pretrain/export"), huggingface.state_of(folder)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "layers.0.self_attn.q_proj.weight",
        "layers.0.self_attn.v_proj.weight",
    }
    about = json.loads(Path(folder, "adapter/adapter_config.json").read_text())
    assert (about["peft_type"], about["r"], about["target_modules"]) == ("LORA", 4, ["q_proj", "v_proj"])
    named = {file.path for file in stage.need_manifest(recipe.root, "sft", "t").tables["export"].files}
    assert "export/adapter/adapter_model.safetensors" in named


def test_files_can_be_named_instead_of_tasks(root, tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "x"}]} for n in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = root(sft={"data": str(path), "batch": 4})
    sft.run(single(recipe))
    first = stage.need_manifest(recipe.root, "sft", "test")
    path.write_text(path.read_text().replace('"x"', '"y"'))
    assert isinstance(stage.begin(recipe, "sft", sft.inputs(recipe, "sft")), stage.Attempt), "contents are hashed"
    assert first.details["examples"] == 9


def test_labels_that_are_all_masked_are_an_error(root, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "no answer"}]}) + "\n")
    with pytest.raises(UserError, match="none has an answer"):
        sft.run(single(root(sft={"data": str(path)})))
    batch = collate(some_examples(), [[0]], 32, 1, 1)
    recipe = root(sft={"batch": 4})
    context = single(recipe)
    begin = posttrain.start(context, "pretrain")
    made = posttrain.filled(context, begin.decoder, context.config, begin.state)
    step = sft.Step([{**batch, "mask": torch.zeros_like(batch["mask"])}], 0.0, 1)
    with pytest.raises(TrainingFailed, match="masked"):
        sft.fit(context, made, lambda _: iter([step]), sft.loss, context.config)


def test_missing_inputs_are_named(root):
    with pytest.raises(UserError, match=r"nothing_here.*has not been published"):
        sft.check(root(sft={"model": "nothing_here"}), "sft")
    with pytest.raises(UserError, match="absent"):
        sft.check(root(sft={"data": "absent.jsonl"}), "sft")
    sft.check(root(other={"step": "pretrain"}, sft={"model": "other"}), "sft", {"other"})


def test_examples_that_are_held_back_are_validated_on_and_not_learned(root, monkeypatch):
    taken, plain = [], sft.batches

    def batches(context, config, examples, make, position):
        taken.extend(examples)
        return plain(context, config, examples, make, position)

    monkeypatch.setattr(sft, "batches", batches)
    recipe = root(sft={"held_back": 0.25, "validate_every": 2, "keep_best": 1, "checkpoint_every": 1, "max_steps": 4})
    sft.run(single(recipe))
    manifest = stage.need_manifest(recipe.root, "sft", "test")
    taught, held_back = (manifest.details[key] for key in ("examples", "held_back"))
    assert held_back == round(0.25 * (taught + held_back))
    assert len(taken) == taught
    rows = [json.loads(line) for line in Path(recipe.root, "sft/metrics.jsonl").read_text().splitlines()]
    assert all(row["validation_loss"] > 0 for row in rows), "every checkpoint is ranked"
    assert 0 <= rows[-1]["validation_token_accuracy"] <= 1
    with pytest.raises(UserError, match=r"held_back = 0\.05"):
        sft.check(root(sft={"validate_every": 2}), "sft")
    with pytest.raises(UserError, match="none are left to train on"):
        sft.split("sft", [1], 0.5)
