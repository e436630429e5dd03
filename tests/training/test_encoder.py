"""Encoders: equal to BERT and ModernBERT of transformers; padding and packing change nothing."""

import pytest
import torch

from tests.training.test_huggingface import close, exported, loaded, made, tokens_of
from training import huggingface
from training.model.assemble import shapes
from training.model.config import ModelConfig

transformers = pytest.importorskip("transformers")

SMALL = {"kind": "encoder", "layers": 5, "width": 32, "heads": 4, "context": 64}
BERT = {"norm_after": True, "activation": "gelu", "positions": "learned", "bias": True, "norm_eps": 1e-12}
SHAPES = {
    "bert": BERT,
    "modernbert": {"rope_theta": 160_000.0},
    "modernbert, local": {"local_window": 8, "global_every": 2, "tied": False, "local_theta": 500.0},
}


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_logits_of_what_we_export(name, tmp_path, small_tokenizer, small):
    config, vocabulary = ModelConfig(**SMALL | SHAPES[name]), small.get_vocab_size()
    model = exported(tmp_path, config, small_tokenizer, vocabulary)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == shapes(config, vocabulary)
    assert sum(p.numel() for p in model.parameters()) == config.parameters(vocabulary)
    theirs, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens = tokens_of(vocabulary)
    with torch.no_grad():
        close(model(tokens), theirs(tokens).logits)
        close(loaded(tmp_path)(tokens), model(tokens))
        mask = torch.ones_like(tokens)
        mask[1, 40:] = 0
        padded = theirs(tokens, attention_mask=mask).logits[1, :40]
        close(model(tokens, segments_BL=mask)[1, :40], padded)


THEIRS = {
    "bert": lambda: transformers.BertConfig(
        vocab_size=90,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        vocab_size=90,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=5,
        num_attention_heads=4,
        max_position_embeddings=64,
        local_attention=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_we_compute_the_logits_of_what_transformers_saved(name, tmp_path):
    torch.manual_seed(3)
    theirs = transformers.AutoModelForMaskedLM.from_config(THEIRS[name]()).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    config = huggingface.read_config(str(tmp_path))[0]
    assert (config.local_window, config.global_every) == ((10, 3) if name == "modernbert" else (None, 3))
    tokens = tokens_of(90)
    with torch.no_grad():
        close(loaded(tmp_path)(tokens), theirs(tokens).logits)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_packed_documents_and_padding_change_nothing(name):
    model = made(ModelConfig(**SMALL | SHAPES[name]), 40)
    generator = torch.Generator().manual_seed(4)
    parts = [torch.randint(0, 40, (length,), generator=generator) for length in (7, 19, 2)]
    tokens = torch.cat([*parts, torch.tensor([1, 1])])[None]
    positions = torch.cat([*(torch.arange(len(part)) for part in parts), torch.zeros(2, dtype=torch.int64)])[None]
    segments = torch.cat([torch.full((len(part),), n + 1) for n, part in enumerate(parts)] + [torch.zeros(2)]).long()
    packed = model(tokens, positions_BL=positions, segments_BL=segments[None])[0, : len(segments) - 2]
    apart = torch.cat([model(part[None])[0] for part in parts])
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-4)
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 40  # seen from both sides
    assert (model(changed, positions_BL=positions, segments_BL=segments[None])[0, :6] != packed[:6]).any()
