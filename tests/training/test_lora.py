import pytest
import torch

from dataeng.cli import UserError
from training.lora import Lora, LoraLinear, Merged, adapter_state, add_adapters, with_adapters
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.parallel import load_full
from training.weights import Gathered

CONFIG = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=32)
LORA = Lora(rank=4, alpha=8)


def adapted(seed=1):
    base = Decoder(CONFIG, 50)
    init_weights(base, seed)
    state = {name: value.clone() for name, value in Gathered(base).items()}
    model = add_adapters(Decoder(CONFIG, 50), LORA)
    load_full(model, with_adapters(state, model, seed))
    return base, model


def test_fresh_adapters_change_nothing():
    base, model = adapted()
    tokens = torch.randint(50, (2, 9))
    torch.testing.assert_close(model(tokens), base(tokens))


def test_merged_weights_compute_what_the_adapters_do():
    base, model = adapted()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.3)
    tokens = torch.randint(50, (2, 9))
    wanted = model(tokens)
    assert (wanted - base(tokens)).abs().max() > 0.01
    load_full(base, Merged(Gathered(model), LORA))
    torch.testing.assert_close(base(tokens), wanted, atol=1e-5, rtol=1e-5)


def test_only_adapters_are_trained():
    _, model = adapted()
    model(torch.randint(50, (2, 9))).logsumexp(-1).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(trained) == 2 * 2 * 7
    assert isinstance(model.layers[0].mlp.up_proj, LoraLinear)


def test_the_adapter_bears_the_names_that_peft_reads():
    _, model = adapted()
    names = adapter_state(Gathered(model))
    assert "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight" in names
    assert names["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"].shape == (32, 4)


def test_a_target_that_no_layer_is_called_is_named():
    with pytest.raises(ValueError, match="query"):
        Lora(targets=("q_proj", "query"))
    plain = ModelConfig(layers=1, width=32, heads=4, activation="gelu")
    with pytest.raises(UserError, match="gate_proj"):
        add_adapters(Decoder(plain, 50), Lora(targets=("gate_proj",)))


@pytest.mark.parametrize("tied", [True, False])
def test_where_tokens_were_added_their_rows_are_trained_and_kept(tied):
    config = CONFIG.model_copy(update={"tied": tied})
    model = add_adapters(Decoder(config, 50), LORA, vocabulary=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad and ".lora_" not in name}
    assert trained == {"embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    names = set(adapter_state(Gathered(model), vocabulary=True))
    assert "base_model.model.model.embed_tokens.weight" in names
    assert ("base_model.model.lm_head.weight" in names) == (not tied)
    assert not any("norm" in name for name in names)
