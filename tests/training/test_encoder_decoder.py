"""Encoder–decoders: equal to T5 of transformers; padding changes nothing."""

import pytest
import torch

from tests.training.test_huggingface import close, exported, loaded, made, tokens_of
from training.model.assemble import shapes
from training.model.cache import AnswerCache, KVCache
from training.model.config import ModelConfig

transformers = pytest.importorskip("transformers")

SMALL = {"kind": "encoder_decoder", "layers": 2, "width": 32, "heads": 4, "context": 64, "distance": 20, "buckets": 8}
SHAPES = {"t5": {"activation": "relu"}, "t5, gated, wide heads": {"head_size": 12, "norm_eps": 1e-5}}


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_logits_of_what_we_export(name, tmp_path, small_tokenizer, small):
    config, vocabulary = ModelConfig(**SMALL | SHAPES[name]), small.get_vocab_size()
    model = exported(tmp_path, config, small_tokenizer, vocabulary)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == shapes(config, vocabulary)
    assert sum(p.numel() for p in model.parameters()) == config.parameters(vocabulary)
    theirs, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokens, answers = tokens_of(vocabulary), tokens_of(vocabulary, (2, 25))
    mask = torch.ones_like(tokens)
    mask[1, 40:] = 0
    with torch.no_grad():
        close(model(tokens, answers), theirs(tokens, decoder_input_ids=answers).logits)
        padded = theirs(tokens, attention_mask=mask, decoder_input_ids=answers).logits
        close(model(tokens, answers, mask), padded)
        close(model(tokens[1:, :40], answers[1:]), padded[1:])
        close(loaded(tmp_path)(tokens, answers), model(tokens, answers))


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_we_compute_the_logits_of_what_transformers_saved(kind, tmp_path):
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj=kind
    )
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    tokens, answers = tokens_of(90), tokens_of(90, (2, 25))
    with torch.no_grad():
        close(loaded(tmp_path)(tokens, answers), theirs(tokens, decoder_input_ids=answers).logits)


@torch.no_grad()
def test_packed_texts_do_not_see_each_other():
    model = made(ModelConfig(**SMALL), 40)
    generator = torch.Generator().manual_seed(4)
    rows = [torch.randint(0, 40, (1, length), generator=generator) for length in (9, 17)]
    answers = [torch.randint(0, 40, (1, length), generator=generator) for length in (5, 4)]
    numbered = [
        torch.cat([torch.full((1, x.shape[1]), n + 1) for n, x in enumerate(part)], 1) for part in (rows, answers)
    ]
    packed = model(torch.cat(rows, 1), torch.cat(answers, 1), *numbered)
    apart = torch.cat([model(*pair) for pair in zip(rows, answers, strict=True)], 1)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_rotary_positions_stand_in_for_relative_ones(tmp_path):
    config = ModelConfig(**SMALL | {"positions": "rotary"})
    model = made(config, 40)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(6)))
    assert sum(p.numel() for p in model.parameters()) == config.parameters(40)
    assert not any("relative" in name for name, _ in model.named_parameters())
    tokens, answers = tokens_of(40), tokens_of(40, (2, 25))
    together = model(tokens, answers)
    cache = AnswerCache(KVCache(config, 2, 25, tokens.device, torch.float32))
    said = [model(tokens if at == 0 else None, answers[:, at : at + 1], cache=cache) for at in range(25)]
    torch.testing.assert_close(torch.cat(said, 1), together, atol=1e-5, rtol=1e-4)
    turned = tokens.flip(1)
    assert (model(turned, answers) - together).abs().max() > 1e-3, "places count"
    numbered = torch.cat([torch.ones_like(answers), 2 * torch.ones_like(answers)], 1)
    rows = torch.cat([torch.ones_like(tokens), 2 * torch.ones_like(tokens)], 1)
    twice = model(torch.cat([tokens, tokens], 1), torch.cat([answers, answers], 1), rows, numbered)
    torch.testing.assert_close(twice[:, :25], together, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(twice[:, 25:], together, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="relative positions belong to an encoder_decoder"):
        ModelConfig(layers=1, width=32, heads=4, positions="relative")
