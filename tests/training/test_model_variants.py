"""Every kind of decoder: cache, packing and padding change nothing; sizes are as counted; bad shapes are refused."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from training.generate import Sampling, generate, noise_keys
from training.model.assemble import assemble, shapes
from training.model.attention import View, attend, block_mask, exact_mask
from training.model.config import ModelConfig
from training.model.decoder import draw, init_weights
from training.model.norms import RMSNorm
from training.model.positions import rotary, rotate, sinusoids
from training.spread import Spread

SMALL = {"layers": 2, "width": 32, "heads": 4, "context": 64}
SCALED = {"type": "yarn", "factor": 4.0, "original_context": 16}
VARIANTS = {
    "llama": {"kv_heads": 2},
    "wide heads, untied": {"head_size": 12, "tied": False, "kv_heads": 1},
    "qk-norm": {"qk_norm": True, "bias": True, "activation": "geglu"},
    "yarn": {"rope_scaling": SCALED, "activation": "relu"},
    "gpt2": {"norm": "layer", "activation": "gelu_tanh", "positions": "learned", "bias": True},
    "sinusoidal": {"norm": "layer", "positions": "sinusoidal", "activation": "gelu", "qk_norm": True},
}
VOCABULARY = 40


@pytest.fixture(params=VARIANTS)
def model(request):
    made = assemble(ModelConfig(**SMALL | VARIANTS[request.param]), VOCABULARY)
    init_weights(made, 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(6).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_generation_is_the_full_forward(model):
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [4]]
    sampling = Sampling(stops=(3,), pad=1, new_tokens=9)
    found = generate(model, model.config, prompts, sampling, 2, noise_keys(7, 0, range(3), 2))
    assert len({tuple(answer) for answer in found.answers()}) > 3
    whole = model(found.tokens_BL, positions_BL=found.positions_BL, segments_BL=found.segments_BL)
    for row, (prompt, answer) in enumerate(zip(np.repeat(np.array(prompts, object), 2), found.answers(), strict=True)):
        close(whole[row][found.segments_BL[row].bool()], model(torch.tensor([[*prompt, *answer]]))[0])
    greedy = Sampling(stops=(3,), pad=1, new_tokens=9, temperature=0.0)
    for prompt, answer in zip(prompts, generate(model, model.config, prompts, greedy).answers(), strict=True):
        logits = model(torch.tensor([[*prompt, *answer]]))[0, len(prompt) - 1 : -1]
        assert logits.argmax(-1).tolist() == answer


@torch.no_grad()
def test_documents_packed_into_a_row_do_not_see_each_other(model):
    generator = torch.Generator().manual_seed(4)
    parts = [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in (7, 19, 2)]
    tokens = torch.cat([*parts, torch.tensor([1, 1])])[None]
    positions = torch.cat([*(torch.arange(len(part)) for part in parts), torch.zeros(2, dtype=torch.int64)])[None]
    segments = torch.cat([torch.full((len(part),), n + 1) for n, part in enumerate(parts)] + [torch.zeros(2)]).long()
    packed = model(tokens, positions_BL=positions, segments_BL=segments[None])[0, : len(segments) - 2]
    close(packed, torch.cat([model(part[None])[0] for part in parts]))


def test_gradients_reach_every_parameter_and_sizes_are_as_counted(model):
    assert sum(p.numel() for p in model.parameters()) == model.config.parameters(VOCABULARY)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == shapes(model.config, VOCABULARY)
    model(torch.randint(0, VOCABULARY, (2, 64))).logsumexp(-1).sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A key's bias adds the same to all scores of a query: its gradient is 0 but for rounding.
    assert not [name for name in still if not name.endswith("k_proj.bias")]


def test_first_weights_are_a_function_of_seed_and_name():
    config = ModelConfig(**SMALL, bias=True, norm="layer", positions="learned")
    one, two = (assemble(config, VOCABULARY) for _ in range(2))
    init_weights(one, 1)
    init_weights(two, 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    name, value = "layers.1.self_attn.o_proj.weight", one.layers[1].self_attn.o_proj.weight
    assert torch.equal(draw(name, value.shape, 2, 1), value)
    assert float(value.detach().std()) == pytest.approx(0.02 / 2, rel=0.1)
    assert not torch.equal(draw(name, value.shape, 2, 2), value)
    tokens = torch.randint(0, VOCABULARY, (4, 64))
    loss = F.cross_entropy(one(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert float(loss) == pytest.approx(np.log(VOCABULARY), abs=0.05)


def test_attention_is_the_weighted_mean_that_it_says():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 6, 8, generator=generator) for heads in (4, 2, 2))
    segments = torch.tensor([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
    places = torch.arange(6)
    mask = exact_mask(places, places, segments, segments, causal=False, window=4)
    found = attend(q, k, v, View(mask=mask), scale=0.5)
    for row, head, query in np.ndindex(2, 4, 6):
        seen = [m for m in range(6) if segments[row, m] == segments[row, query] and abs(m - query) <= 2]
        scores = torch.stack([q[row, head, query] @ k[row, head // 2, m] * 0.5 for m in seen]).softmax(0)
        torch.testing.assert_close(found[row, head, query], scores @ v[row, head // 2, seen])


def test_sinusoids_are_those_of_the_paper():
    found = sinusoids(torch.tensor([[0, 3]]), 8)
    angles = 3 / 10_000 ** (np.arange(4) / 4)
    assert found[0, 0].tolist() == [0] * 4 + [1] * 4
    assert found[0, 1].tolist() == pytest.approx([*np.sin(angles), *np.cos(angles)], abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 33}, "width 33 must be a multiple of heads 4"),
        ({"width": 36}, "even head width"),
        ({"kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
        ({"positions": "relative"}, "relative positions belong to"),
        ({"local_window": 8}, "only an encoder has one"),
        ({"norm_after": True}, "only an encoder has it"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "needs original_context"),
        ({"rope_scaling": SCALED, "positions": "learned"}, "it is for rotary ones"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "'linear', 'llama3' or 'yarn'"),
    ],
)
def test_shapes_that_make_no_model_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**SMALL | values)


@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "transposed"])
def test_the_root_mean_square_norm_has_torchs_values_and_slopes(turned):
    torch.manual_seed(0)
    weight, slope = torch.randn(8), torch.randn(3, 5, 8)
    inputs = torch.randn(5, 3, 8).transpose(0, 1) if turned else torch.randn(3, 5, 8)

    def found(norm):
        x, w = inputs.clone().requires_grad_(), weight.clone().requires_grad_()
        assert x.is_contiguous() is not turned
        out = norm(x, w)
        with torch.autocast("cpu", torch.bfloat16):  # of sums and means nothing may become bf16
            return out, *torch.autograd.grad(out, (x, w), slope)

    def ours(x, w):
        norm = RMSNorm(8, 1e-5)
        return torch.func.functional_call(norm, {"weight": w}, (x,))

    theirs = found(lambda x, w: torch.nn.functional.rms_norm(x, (8,), w, 1e-5))
    for one, other in zip(found(ours), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_normed_row_of_zeros_stays_finite():
    x = torch.zeros(1, 2, 8, requires_grad=True)
    RMSNorm(8, 1e-5)(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_pairs_turn_by_their_angle(dtype):
    config = ModelConfig.model_validate({"width": 16, "heads": 2, "layers": 1, "ffn": 16, "context": 8})
    torch.manual_seed(0)
    heads = torch.randn(1, 2, 8, 8, dtype=dtype)
    positions = torch.arange(8)[None]
    turned = rotate(heads, *rotary(positions, config))
    angle = positions[0, :, None].double() * config.rope_theta ** (-torch.arange(0, 8, 2).double() / 8)
    wanted = torch.complex(*heads.double().chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle)
    assert turned.dtype == dtype
    close = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2}[dtype]  # half of bf16's last place, for numbers under 4
    torch.testing.assert_close(turned.double(), torch.cat((wanted.real, wanted.imag), -1), rtol=0, atol=close)


def _seen(mask: BlockMask, length: int, keys: int) -> torch.Tensor:
    """Where a block mask lets queries look (B, L, M)."""
    query, key = torch.arange(length)[:, None], torch.arange(keys)[None]
    found = torch.zeros(mask.kv_num_blocks.shape[0], length, keys, dtype=torch.bool)
    for row, seen in enumerate(found):
        inside = mask.mask_mod(torch.tensor(row), torch.tensor(0), query, key)
        kinds = (
            (mask.kv_num_blocks, mask.kv_indices, inside),
            (mask.full_kv_num_blocks, mask.full_kv_indices, torch.ones_like(inside)),
        )
        for counts, indices, values in kinds:
            for block, count in enumerate(counts[row, 0].tolist()):
                for other in indices[row, 0, block, :count].tolist():
                    part = (slice(block * 128, block * 128 + 128), slice(other * 128, other * 128 + 128))
                    seen[part] = values[part]
    return found


@pytest.mark.parametrize("window", [None, 100, 300])
@pytest.mark.parametrize("causal", [True, False])
def test_a_mask_in_blocks_is_the_exact_one(causal, window):
    torch.manual_seed(0)
    segments = torch.sort(torch.randint(1, 5, (3, 512)))[0]
    segments[1], segments[2, -150:] = 1, 0  # one document; padding
    places = torch.arange(512)
    arguments = (places, places, segments, segments, causal, window)
    mask = block_mask(*arguments)
    assert torch.equal(_seen(mask, 512, 512), exact_mask(*arguments)[:, 0])
    looked = mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()
    assert looked < 3 * 16 or not (causal or window)


def test_flex_attention_compiles_with_it_and_mixes_the_same_values():
    torch.manual_seed(0)
    spread, segments = Spread(1, 2), torch.sort(torch.randint(1, 5, (2, 512)))[0]
    here, every = spread.places(512), spread.all_places(512)
    arguments = (here, every, segments[:, here], segments[:, every], True)
    q, k, v = torch.randn(2, 4, 256, 32), torch.randn(2, 2, 512, 32), torch.randn(2, 2, 512, 32)
    with torch.no_grad():
        found, wanted = (attend(q, k, v, View(mask=make(*arguments))) for make in (block_mask, exact_mask))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", range(2))
def test_a_mask_in_blocks_knows_where_spread_tokens_stand(part):
    spread = Spread(part, 2)
    segments = torch.sort(torch.randint(1, 5, (2, 512)))[0]
    here, every = spread.places(512), spread.all_places(512)
    arguments = (here, every, segments[:, here], segments[:, every], True)
    assert torch.equal(_seen(block_mask(*arguments), 256, 512), exact_mask(*arguments)[:, 0])
    one = block_mask(here, every, torch.ones(1, 256).int(), torch.ones(1, 512).int(), True)
    numbers = (torch.tensor(n) for n in (7, 0, 0, 0))  # of the eighth row, its first query and key
    assert one.mask_mod(*numbers) == (every[0] <= here[0])
