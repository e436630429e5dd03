"""Optimisers: which parameter gets what; Muon and LAMB against their definitions; the floor of a small task."""

import pytest
import torch

from training import optim
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights
from training.optimizers import Lamb, Muon, Sgd, orthogonalise
from training.settings import TrainerConfig

SHAPE = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=32)


def settings_of(**more):
    return TrainerConfig(**({"max_steps": 3, "learning_rate": 1e-2, "precision": "fp32"} | more))


def decoder(tied=True):
    model = Decoder(SHAPE.model_copy(update={"tied": tied}), 50)
    init_weights(model, 0)
    return model


def gradients(parameters, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_muon_takes_the_matrices_of_blocks_and_nothing_else():
    model = decoder(tied=False)
    hidden = [
        p for group in optim.groups(model, settings_of(optimizer="muon")) if group["hidden"] for p in group["params"]
    ]
    blocks = [p for name, p in model.named_parameters() if ".weight" in name and "layers." in name and p.ndim == 2]
    assert {id(p) for p in hidden} == {id(p) for p in blocks}
    assert len(blocks) == 2 * 7


def test_every_parameter_stands_in_one_group_and_rates_fall_towards_the_embedding():
    model = decoder(tied=False)
    made = optim.make(model, settings_of(layer_decay=0.5))
    optim.set_rate(made, 1.0)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in made.param_groups) == len(list(model.parameters()))
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    assert named["lm_head.weight"] == named["norm.weight"] == 1.0
    assert named["layers.1.mlp.up_proj.weight"] == 0.5
    assert named["layers.0.input_layernorm.weight"] == 0.25
    assert named["embed_tokens.weight"] == 0.125


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (4, 24, 24)])
def test_orthogonalised_singular_values_are_near_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = torch.linalg.svdvals(orthogonalise(matrices, torch.float32))
    assert float(found.min()) > 0.6
    assert float(found.max()) < 1.3
    # The same left and right spaces: U Vᵀ of the input is positive on it.
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert float((left.mT @ orthogonalise(matrices, torch.float32) @ right.mT).diagonal(dim1=1, dim2=2).min()) > 0.5


def test_muon_is_torchs_on_matrices_and_adamw_elsewhere():
    ours = [
        torch.nn.Parameter(torch.randn(s, generator=torch.Generator().manual_seed(3)))
        for s in ((24, 16), (24, 16), (9,))
    ]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    made = Muon(
        [{"params": ours[:2], "hidden": True, "weight_decay": 0.1}, {"params": ours[2:], "weight_decay": 0.1}],
        0.02, dtype=torch.bfloat16,
    )  # fmt: skip
    peers = [
        torch.optim.Muon(theirs[:2], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(theirs[2:], lr=0.02, weight_decay=0.1, betas=(0.9, 0.95)),
    ]
    for step in range(4):
        gradients(ours, step)
        gradients(theirs, step)
        made.step()
        for peer in peers:
            peer.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            own, other, rtol=2e-2 if own.ndim == 2 else 1e-6, atol=2e-3 if own.ndim == 2 else 1e-6
        )


def test_lamb_moves_each_parameter_by_its_own_norm():
    parameter = torch.nn.Parameter(torch.full((4, 4), 2.0))
    made = Lamb([{"params": [parameter], "weight_decay": 0.0}], 0.1, (0.9, 0.999), 0.0)
    parameter.grad = torch.full((4, 4), 5.0)
    made.step()  # the first update is 1 everywhere; its norm 4, the weights' 8: trust 2
    assert torch.allclose(parameter, torch.full((4, 4), 2.0 - 0.1 * 2.0))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lamb", "sgd"])
def test_each_optimiser_learns_and_goes_on_bit_for_bit_from_its_state(optimizer):
    tokens = torch.randint(0, 50, (8, 17), generator=torch.Generator().manual_seed(5))

    def train(model, made, steps):
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()
            optim.clip(model, 1.0)
            made.step()
            made.zero_grad()
        return float(loss.detach())

    settings = settings_of(optimizer=optimizer, learning_rate={"sgd": 0.5, "lamb": 0.1}.get(optimizer, 1e-2))
    whole, first, second = decoder(), decoder(), decoder()
    made = optim.make(whole, settings)
    begun, ended = train(whole, made, 1), train(whole, made, 11)
    assert ended < 0.9 * begun
    before = optim.make(first, settings)
    train(first, before, 6)
    second.load_state_dict(first.state_dict())
    after = optim.make(second, settings)
    after.load_state_dict(before.state_dict())
    assert train(second, after, 6) == ended


def test_decay_of_sgd_is_apart_from_its_momentum():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    made = Sgd([{"params": [weight], "weight_decay": 0.1}], 0.1, 0.9)
    for _ in range(50):
        weight.grad = torch.zeros_like(weight)
        made.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.99**50))
    for step in range(4):
        weight.grad = torch.full_like(weight, float(step))
    plain = torch.nn.Parameter(weight.detach().clone())
    theirs = torch.optim.SGD([plain], 0.1, 0.9)
    ours = Sgd([{"params": [weight], "weight_decay": 0.0}], 0.1, 0.9)
    for _ in range(3):
        weight.grad, plain.grad = torch.ones_like(weight), torch.ones_like(plain)
        ours.step()
        theirs.step()
    assert torch.equal(weight, plain)


def test_moments_that_never_forget_are_refused():
    with pytest.raises(ValueError, match="less than 1"):
        settings_of(betas=(0.9, 1.0))
