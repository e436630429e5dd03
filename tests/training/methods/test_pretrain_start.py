"""Pretraining that goes on from a model that is there: an earlier step's, or a folder made elsewhere."""

import json

import pytest
import safetensors.torch
import torch

from dataeng import stage
from dataeng.cli import UserError
from dataeng.tokens import chat, tokenizer
from tests.training.test_huggingface import loaded, tokens_of
from tests.training.tools import SAMPLE, publish_tokens, recipe_at, text
from training import families, huggingface, weights
from training.context import Context
from training.families.t5 import T5
from training.methods import pretrain
from training.model.config import ModelConfig
from training.posttrain import _check_model, start

transformers = pytest.importorskip("transformers")


def run(recipe, name="pretrain"):
    pretrain.check(recipe, name)
    pretrain.run(Context.single(recipe, name))
    return f"{recipe.root}/{name}/export"


def test_a_step_goes_on_from_another(tmp_path):
    recipe = recipe_at(tmp_path, learning_rate=3e-3)
    publish_tokens(recipe)
    first = run(recipe)
    recipe.tables["more"] = {"step": "pretrain", "model": "pretrain", "max_steps": 1, "learning_rate": 1e-9} | {
        "precision": "fp32",
        "batch": 6,
    }
    again = run(recipe, "more")
    one, two = huggingface.state_of(first), huggingface.state_of(again)
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    rows = [json.loads(line) for line in (tmp_path / "more" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] < 5.5
    assert stage.need_manifest(recipe.root, "more", "test").inputs[1]["stage"] == "pretrain"


def gpt2_folder(folder, tokenizer_path):
    """A folder as transformers writes one: bf16, several files, a tokenizer without our special tokens."""
    ours = json.loads(tokenizer_path.read_text())
    special = {item["content"]: item["id"] for item in ours["added_tokens"]}
    kept = {token: number for token, number in ours["model"]["vocab"].items() if token not in special}
    renumbered = {token: number for number, token in enumerate(sorted(kept, key=kept.get))}
    ours["model"]["vocab"] = renumbered
    ours["added_tokens"] = []
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(ours))
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(renumbered), n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="30KB")
    return len(renumbered)


def test_a_folder_made_elsewhere_is_pretrained_further_with_its_own_tokenizer(tmp_path):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    folder = tmp_path / "gpt2"
    entries = gpt2_folder(folder, tmp_path / "tokenizer" / "data" / "tokenizer.json")
    recipe.tables["pretrain"]["model"] = str(folder)
    with pytest.raises(UserError, match=r"vocabulary is not that of .*gpt2.*tokenizer\.file") as error:
        pretrain.check(recipe, "pretrain")
    assert "\n" not in str(error.value)

    taken = tokenizer.taken(str(folder / "tokenizer.json"))
    assert taken.get_vocab_size() == entries + len(chat.SPECIAL_TOKENS)
    assert taken.encode(text(0)).ids == tokenizer.load(str(folder / "tokenizer.json")).encode(text(0)).ids
    path = tmp_path / "tokenizer" / "data" / "tokenizer.json"
    path.write_text(taken.to_str())
    other = recipe_at(tmp_path / "root", max_steps=2, learning_rate=1e-9)
    other.tables["pretrain"]["model"] = str(folder)
    publish_tokens(other, tokenizer_json=taken.to_str())
    exported = run(other)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported)
    assert theirs.config.vocab_size == entries + len(chat.SPECIAL_TOKENS)
    tokens = tokens_of(entries)
    before = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits[..., :entries], before(tokens).logits, atol=1e-4, rtol=0)


def test_a_folder_can_be_tuned_on_chats_though_its_tokenizer_knows_none(tmp_path):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    folder = tmp_path / "gpt2"
    entries = gpt2_folder(folder, tmp_path / "tokenizer" / "data" / "tokenizer.json")
    recipe.tables["sft"] = {"model": str(folder)}
    _check_model(recipe, "sft", str(folder), coming=(), kinds=("decoder",))
    begin = start(Context(recipe, "sft", recipe.step("sft")), str(folder))
    assert begin.vocabulary == entries + len(chat.SPECIAL_TOKENS)
    ids = chat.encode_prompt(begin.tokenizer, [{"role": "user", "content": text(1)}])
    assert max(ids) >= entries
    assert begin.decoder().embed_tokens.weight.shape[0] == begin.vocabulary
    huggingface.write(str(tmp_path / "out"), dict(begin.state), begin.architecture, begin.tokenizer_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    chats = [{"role": "user", "content": text(1)}]
    assert theirs.apply_chat_template(chats, add_generation_prompt=True, return_dict=False) == ids
    loaded(tmp_path / "out")


def test_what_cannot_be_exported_needs_saying_so(tmp_path):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    recipe.tables["pretrain"]["model"] = {"layers": 1, "width": 32, "heads": 2, "context": SAMPLE} | {
        "positions": "sinusoidal"
    }
    with pytest.raises(UserError, match=r"test\.toml: pretrain\.export = true: .*or false to keep"):
        pretrain.check(recipe, "pretrain")
    recipe.tables["pretrain"] |= {"export": False, "max_steps": 2, "max_shard_bytes": 40_000}
    folder = run(recipe)
    assert huggingface.read_config(folder)[0].positions == "sinusoidal"
    assert len(weights.Stored(folder)._files()) > 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"heads": 5}, r"pretrain\.model.*width 32 must be a multiple of heads 5"),
        ({"kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
        ({"context": 16}, r"pretrain\.model\.context = 16: rows are 32 tokens long"),
        ({"positions": "relative"}, "relative positions belong to"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line(values, message, tmp_path):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    recipe.tables["pretrain"]["model"] |= values
    with pytest.raises(UserError, match=message) as error:
        pretrain.check(recipe, "pretrain")
    assert "\n" not in str(error.value)


def test_a_step_that_starts_from_one_to_come_is_checked_all_the_same(tmp_path):
    recipe = recipe_at(tmp_path)
    publish_tokens(recipe)
    recipe.tables["more"] = {"step": "pretrain", "model": "pretrain", "row_tokens": 12}
    with pytest.raises(UserError, match="row_tokens = 12: must divide"):
        pretrain.check(recipe, "more", {"pretrain"})
    recipe.tables["more"] |= {"row_tokens": 32, "mixture": [{"weights": {"web": 1, "nowhere": 1}}]}
    with pytest.raises(UserError, match="no source 'nowhere'"):
        pretrain.check(recipe, "more", {"pretrain"})


def test_a_folder_of_t5_1_1_whose_head_is_its_own_is_read(tmp_path):
    shape = ModelConfig(kind="encoder_decoder", layers=1, width=32, heads=2, tied=False)
    state = {name: torch.randn(size) for name, size in huggingface.shapes(shape, 40).items()}
    there = {families.place(T5, shape, name).name: value for name, value in state.items()}
    assert "lm_head.weight" in there
    safetensors.torch.save_file(there, tmp_path / "model.safetensors")
    about = families.config_json(shape.model_copy(update={"tied": True}), 40, {"end": 1, "pad": 0})
    about |= {"tie_word_embeddings": False, "scale_decoder_outputs": False}
    (tmp_path / "config.json").write_text(json.dumps(about))
    huggingface.check_weights(str(tmp_path))
    read = huggingface.state_of(str(tmp_path))
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_a_start_and_a_shape_contradict_each_other(tmp_path):
    recipe = recipe_at(tmp_path, start="other")
    with pytest.raises(UserError, match="the shape is that of the model started from"):
        recipe.step("pretrain")
