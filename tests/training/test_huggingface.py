"""Folders of Hugging Face, both ways: equal logits, several files, one line for what is none of ours."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dataeng.cli import UserError
from dataeng.recipe import Recipe
from training import families, huggingface
from training.model.assemble import assemble
from training.model.config import ModelConfig
from training.model.decoder import init_weights
from training.parallel import load_full
from training.weights import Gathered

transformers = pytest.importorskip("transformers")

SMALL = {"layers": 2, "width": 32, "heads": 4, "context": 64, "norm_eps": 1e-6}
YARN = {"type": "yarn", "factor": 4.0, "original_context": 16, "beta_fast": 4.0}
LLAMA3 = {"type": "llama3", "factor": 8.0, "original_context": 32}
GPT2 = {"norm": "layer", "activation": "gelu_tanh", "positions": "learned", "bias": True}
SHAPES = {
    "llama": {"kv_heads": 2, "rope_theta": 500.0},
    "llama, untied, biases, wide heads": {"tied": False, "bias": True, "head_size": 12, "ffn": 40},
    "llama, linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, llama3": {"rope_scaling": LLAMA3, "rope_theta": 5000.0},
    "llama, yarn": {"rope_scaling": YARN, "kv_heads": 1},
    "llama, yarn, DeepSeek": {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4, "truncate": False}},
    "qwen3": {"qk_norm": True, "kv_heads": 2, "head_size": 16, "tied": False},
    "gpt2": GPT2,
    "gpt2, untied": GPT2 | {"tied": False, "activation": "gelu", "ffn": 48},
}


def config_of(name):
    return ModelConfig(**SMALL | SHAPES[name])


def made(config, vocabulary, seed=1):
    """A model far from uniform, its norms and biases as well, so that mistakes show."""
    model = assemble(config, vocabulary)
    init_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    factor = 1.5 if config.kind == "encoder_decoder" else 6  # those begin far from it
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.mul_(factor) if parameter.ndim > 1 else parameter.add_(0.3 * noise)
    return model.eval()


def exported(folder, config, tokenizer_path, vocabulary, **more):
    model = made(config, vocabulary)
    huggingface.write(str(folder), Gathered(model), config, tokenizer_path, **more)
    return model


def loaded(folder):
    """Our model of a folder."""
    config, vocabulary = huggingface.read_config(str(folder))
    huggingface.check_weights(str(folder))
    model = assemble(config, vocabulary)
    load_full(model, huggingface.state_of(str(folder)))
    return model.eval()


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=0)


def tokens_of(vocabulary, shape=(2, 60)):
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_logits_of_what_we_export(name, tmp_path, small_tokenizer, small):
    config, vocabulary = config_of(name), small.get_vocab_size()
    model = exported(tmp_path, config, small_tokenizer, vocabulary)
    about = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    theirs, info = about
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens = tokens_of(vocabulary)
    with torch.no_grad():
        close(model(tokens), theirs(tokens).logits)
        close(loaded(tmp_path)(tokens), model(tokens))
    assert huggingface.read_config(str(tmp_path))[0] == config.model_copy(
        update={"kv_heads": config.key_heads, "ffn": config.inner, "head_size": config.head_width}
        if name[:4] != "gpt2"
        else {"ffn": config.inner}
    )


LLAMA_LIKE = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
THEIRS = {
    "llama": lambda: transformers.LlamaConfig(
        **LLAMA_LIKE,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 700.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        tie_word_embeddings=True,
    ),
    "llama, dynamic": lambda: transformers.LlamaConfig(
        **LLAMA_LIKE, rope_parameters={"rope_type": "dynamic", "rope_theta": 700.0, "factor": 4.0}
    ),
    "llama, yarn": lambda: transformers.LlamaConfig(
        **LLAMA_LIKE,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "qwen3": lambda: transformers.Qwen3Config(**LLAMA_LIKE, head_dim=16, tie_word_embeddings=False),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0
    ),
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_we_compute_the_logits_of_what_transformers_saved(name, kind, tmp_path):
    torch.manual_seed(3)
    theirs = transformers.AutoModelForCausalLM.from_config(THEIRS[name]()).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.to(getattr(torch, kind)).save_pretrained(tmp_path, max_shard_size="20KB")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    model = loaded(tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    tokens = tokens_of(90)
    with torch.no_grad():
        close(model(tokens), theirs(tokens).logits)


def test_large_models_are_several_files_and_smaller_ones_replace_them(tmp_path, small_tokenizer, small):
    config, vocabulary = config_of("qwen3"), small.get_vocab_size()
    model = exported(tmp_path, config, small_tokenizer, vocabulary, shard_bytes=50_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    sizes = [sum(t.nbytes for t in safetensors.torch.load_file(tmp_path / file).values()) for file in files]
    assert sum(sizes) == index["metadata"]["total_size"]
    assert sum(size > 50_000 for size in sizes) == sum(p.nbytes > 50_000 for p in model.parameters())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = tokens_of(vocabulary)
    with torch.no_grad():
        close(model(tokens), theirs(tokens).logits)
        close(loaded(tmp_path)(tokens), model(tokens))
    exported(tmp_path, config, small_tokenizer, vocabulary)
    assert [file.name for file in tmp_path.glob("model*")] == ["model.safetensors"]


def test_rows_are_read_alone(tmp_path, small_tokenizer, small, monkeypatch):
    config, vocabulary = config_of("gpt2"), small.get_vocab_size()
    exported(tmp_path, config, small_tokenizer, vocabulary)
    state = huggingface.state_of(str(tmp_path))
    for name in ("embed_tokens.weight", "layers.1.self_attn.k_proj.weight", "layers.0.self_attn.v_proj.bias"):
        torch.testing.assert_close(state.rows(name, 3, 11), state[name][3:11])
    read = []
    whole = huggingface.storage.read_bytes
    monkeypatch.setattr(huggingface.storage, "read_bytes", lambda *a: (read.append(a), whole(*a))[1])
    assert state.rows("embed_tokens.weight", 3, 11).shape == (8, 32)
    assert [a[2] for a in read] == [8 * 32 * 4]


def test_a_config_without_an_architecture_is_refused_or_kept_in_our_own_format(tmp_path, small_tokenizer, small):
    odd = ModelConfig(**SMALL | {"positions": "sinusoidal", "norm": "layer"})
    with pytest.raises(UserError, match=r"r.toml: pretrain.export = true: .*nearest.*or false") as error:
        Recipe("r.toml", str(tmp_path), 0, {"pretrain": {"model": odd.model_dump(mode="json")}}).step("pretrain")
    assert "\n" not in str(error.value)
    near = ModelConfig(**SMALL | {"qk_norm": True, "bias": True})
    with pytest.raises(ValueError, match=r"qwen3, wants bias = false|llama, wants qk_norm = false"):
        families.check_export(near)
    wide = ModelConfig(**SMALL | {"heads": 5, "kv_heads": 5, "head_size": 8})
    with pytest.raises(ValueError, match=r"llama, wants heads = a divisor of width 32"):
        families.check_export(wide)
    stretched = {"rope_scaling": {"type": "yarn", "factor": 2, "original_context": 8, "truncate": False}}
    with pytest.raises(ValueError, match=r"modernbert, wants rope_scaling.truncate = true"):
        families.check_export(ModelConfig(kind="encoder", width=32, heads=4, **stretched))
    vocabulary = small.get_vocab_size()
    model = exported(tmp_path, odd, small_tokenizer, vocabulary)
    assert huggingface.read_config(str(tmp_path)) == (odd, vocabulary)
    tokens = tokens_of(vocabulary)
    with torch.no_grad():
        torch.testing.assert_close(loaded(tmp_path)(tokens), model(tokens))


def changed(folder: Path, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba'"),
        ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"num_attention_heads": 5}, "config.json.*heads 5"),
        ({"hidden_size": 64, "head_dim": 8}, "embed_tokens.weight has the shape"),
        ({"num_hidden_layers": 3}, "have no layers.2"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
    ],
)
def test_a_folder_of_another_model_is_named_in_one_line(values, message, tmp_path, small_tokenizer, small):
    exported(tmp_path, config_of("llama"), small_tokenizer, small.get_vocab_size())
    changed(tmp_path, **values)
    with pytest.raises(UserError, match=message) as error:
        huggingface.check_weights(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_folder_that_is_missing_empty_or_cut_short_is_named(tmp_path, small_tokenizer, small):
    with pytest.raises(UserError, match=r"has no config\.json"):
        huggingface.check_weights(str(tmp_path / "nowhere"))
    exported(tmp_path, config_of("llama"), small_tokenizer, small.get_vocab_size())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="damaged or cut short"):
        huggingface.check_weights(str(tmp_path))
    file.unlink()
    with pytest.raises(UserError, match=r"neither model\.safetensors nor"):
        huggingface.check_weights(str(tmp_path))
