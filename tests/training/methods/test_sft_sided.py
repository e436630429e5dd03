"""Supervised pairs of encoder–decoders: packing changes nothing; what is learned is said, by transformers too."""

import json
from pathlib import Path

import pytest
import torch
from test_sft import gradients

from dataeng import stage
from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.tokens import chat
from tests.training.conftest import TABLES, publish_model
from training import evaluate, posttrain, train
from training.context import Context
from training.data.sided import Sided, collate_sides, encode_sides, pack_sides
from training.generate import Sampling, generate, noise_keys, pick, uniforms
from training.methods import sft
from training.model.config import ModelConfig
from training.model.decoder import init_weights
from training.model.encoder_decoder import EncoderDecoder

CONFIG = ModelConfig(kind="encoder_decoder", layers=2, width=32, heads=4, context=64, distance=20, buckets=8)
PAD = 1


def some_examples():
    generator = torch.Generator().manual_seed(3)
    sizes = ((5, 3), (17, 9), (9, 2), (32, 6), (3, 11), (12, 16), (8, 1), (21, 5))

    def ids(length):
        return torch.randint(2, 40, (length,), generator=generator).tolist()

    return [Sided(ids(source), ids(target)) for source, target in sizes]


@pytest.fixture(scope="module")
def model():
    found = EncoderDecoder(CONFIG, 40)
    init_weights(found, 1)
    return found


def test_packing_changes_neither_loss_nor_gradients(model):
    examples = some_examples()
    plain = collate_sides(examples, [[index] for index in range(8)], (32, 16), PAD, 8)
    loss, wanted = gradients(model, [plain])
    for widths, micro in (((64, 32), 8), ((32, 16), 2), ((40, 20), 1)):
        step = sft.sided_step(Context(None, "sft", None), examples, widths, PAD, micro, 0)
        assert step.weight == sum(len(example.target) for example in examples)
        packed_loss, found = gradients(model, step.micro)
        assert packed_loss.item() == pytest.approx(loss.item(), abs=1e-6)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_has_as_many_micro_batches_and_no_example_is_lost_or_doubled(world):
    examples, found = some_examples(), []
    contexts = [Context(None, "sft", None, rank=rank, world=world) for rank in range(world)]
    steps = [sft.sided_step(context, examples, (34, 18), PAD, 2, 7) for context in contexts]
    assert len({len(step.micro) for step in steps}) == 1
    for batch in (batch for step in steps for batch in step.micro):
        for row in range(len(batch["tokens"])):
            for segment in range(1, int(batch["segments"][row].max()) + 1):
                here, there = batch["segments"][row] == segment, batch["answer_segments"][row] == segment
                target = batch["targets"][row][there].tolist()
                assert batch["answers"][row][there].tolist() == [PAD, *target[:-1]]
                found.append(Sided(batch["tokens"][row][here].tolist(), target))
    assert sorted(found) == sorted(examples)
    with pytest.raises(ValueError, match="has 32 and 6 tokens, a row 31 and 18"):
        pack_sides(examples, (31, 18))


def test_every_answer_of_a_chat_is_an_example(small):
    messages = [
        {"role": "user", "content": "Copy: red"},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "red car"},
    ]
    examples, longer = encode_sides(small, [messages], 64)
    texts = [[small.decode(side, skip_special_tokens=False) for side in example] for example in examples]
    opened = "<|user|> Copy: red<|end|><|assistant|>"
    assert texts == [
        [opened, " red<|end|>"],
        [f"{opened} red<|end|><|user|> again<|end|><|assistant|>", " red car<|end|>"],
    ]
    assert longer == 0
    assert encode_sides(small, [messages], len(examples[0].source))[1] == 1
    with pytest.raises(UserError, match="none has an answer and fits into 3 tokens"):
        encode_sides(small, [messages], 3)


PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [4], [20, 21, 22, 23]]


@torch.no_grad()
def slowly(model, prompt, sampling, keys=None):
    """One answer without cache, padding or batch."""
    ids = [sampling.pad]
    for place in range(sampling.new_tokens):
        logits = model(torch.tensor([prompt]), torch.tensor([ids]))[:, -1].float()
        ids.append(int(pick(logits, sampling.temperature, None if keys is None else uniforms(keys, place))))
        if ids[-1] in sampling.stops:
            break
    return ids[1:]


def test_answers_equal_those_without_cache_padding_or_batch(model):
    model.eval()
    greedy = Sampling(stops=(3,), pad=PAD, new_tokens=12, temperature=0.0)
    assert generate(model, CONFIG, PROMPTS, greedy).answers() == [slowly(model, prompt, greedy) for prompt in PROMPTS]
    drawn, keys = Sampling(stops=(3,), pad=PAD, new_tokens=12), noise_keys(7, 3, range(4), 3)
    found = generate(model, CONFIG, PROMPTS, drawn, samples=3, keys=keys)
    assert found.answers() == [slowly(model, PROMPTS[row // 3], drawn, keys[row : row + 1]) for row in range(12)]
    assert len({tuple(answer) for answer in found.answers()}) > 6
    for row, answer in enumerate(found.answers()):
        whole = found.tokens_BL[row][found.segments_BL[row].bool()].tolist()
        assert whole == [*PROMPTS[row // 3], *answer]
        assert bool(found.ended_B[row]) == (answer[-1] == 3)
    with pytest.raises(ValueError, match="context of 64"):
        generate(model, CONFIG, [[4] * 65], greedy)


@pytest.fixture
def t5(tmp_path, small_tokenizer):
    """Makes recipes over a root with tasks and an untrained encoder–decoder, published as `pretrain`."""
    from dataeng.acquire import tasks

    def recipe_of(**more):
        common = {"max_steps": 3, "precision": "fp32", "checkpoint_every": 100, "log_every": 100}
        tables = {name: ({} if name == "evaluate" else common) | values for name, values in more.items()}
        start = {"pretrain": {"model": CONFIG.model_dump(exclude={"kv_heads", "ffn"})}}
        return Recipe("test.toml", str(tmp_path), 1, TABLES | start | tables)

    recipe = recipe_of()
    tasks.step(recipe)
    publish_model(recipe, "pretrain", CONFIG, small_tokenizer)
    return recipe_of


def losses(recipe, name):
    rows = [json.loads(line) for line in Path(recipe.root, name, "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


def test_an_encoder_decoder_is_tuned_measured_and_transformers_answers_alike(t5, small):
    transformers = pytest.importorskip("transformers")
    recipe = t5(
        sft={"max_steps": 24, "learning_rate": 1e-2, "batch": 24},
        adapted={"step": "sft", "model": "sft", "max_steps": 8, "learning_rate": 1e-2, "lora": {"rank": 4}},
        evaluate={"tokens": None, "precision": "fp32", "models": ["sft"], "new_tokens": 8, "samples": 2},
    )
    train.check(recipe, ["sft", "adapted"], [1])
    train.run_steps(recipe, ["sft", "adapted"], Context.single)
    assert losses(recipe, "sft")[-1] < 0.7 * losses(recipe, "sft")[0]
    assert min(losses(recipe, "adapted")) < losses(recipe, "adapted")[0]
    evaluate.check(recipe, "evaluate")
    evaluate.run(Context.single(recipe, "evaluate"))
    said = stage.need_manifest(recipe.root, "evaluate", "test").details["models"]["sft"]
    assert said["tasks"]["greedy"]["accuracy"] >= 0
    assert any(row["output"] for row in said["samples"])

    folder = f"{recipe.root}/sft/export"
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    begin = posttrain.start(Context.single(recipe, "sft"), "sft")
    ours = posttrain.frozen(Context.single(recipe, "sft"), begin.model, recipe.step("sft"), begin.state)
    prompt = chat.encode_prompt(small, [{"role": "user", "content": "Copy: red car"}])
    stops = tuple(chat.stop_ids(small))
    [answer] = generate(
        ours, begin.architecture, [prompt], Sampling(stops, begin.tokenizer.token_to_id(chat.PAD), 12, 0.0)
    ).answers()
    [made] = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
    assert made[1:].tolist() == answer


def test_methods_that_need_a_decoder_refuse_an_encoder_decoder(t5):
    recipe = t5(sft={}, dpo={"model": "sft"}, reward={"model": "pretrain"})
    for steps in (["sft", "dpo"], ["reward"]):
        with pytest.raises(
            UserError, match=r"\.model = .*: is an encoder_decoder: a step '.*' needs a decoder"
        ) as error:
            train.check(recipe, steps, [1])
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="needs a decoder"):
        train.check(t5(pretrain={"model": {"kind": "encoder_decoder"}}, dpo={"model": "pretrain"}), ["dpo"], [1])
