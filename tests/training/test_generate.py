import numpy as np
import pytest
import torch

from training.generate import Sampling, generate, noise_keys, pick, uniforms
from training.model.config import ModelConfig
from training.model.decoder import Decoder, init_weights

CONFIG = ModelConfig(layers=2, width=32, heads=4, kv_heads=2, context=64)
SAMPLING = Sampling(stops=(3,), pad=1, new_tokens=12, temperature=1.0)
PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [4], [20, 21, 22, 23]]


@pytest.fixture(scope="module")
def model():
    made = Decoder(CONFIG, 40)
    init_weights(made, 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)  # far from uniform, so that mistakes show
    return made.eval()


def slowly(model, prompt, sampling, keys=None):
    """One answer without cache, padding or batch."""
    ids = list(prompt)
    for place in range(sampling.new_tokens):
        logits = model(torch.tensor([ids]))[:, -1].float()
        ids.append(int(pick(logits, sampling.temperature, None if keys is None else uniforms(keys, place))))
        if ids[-1] in sampling.stops:
            break
    return ids[len(prompt) :]


def test_greedy_answers_equal_those_without_cache_padding_or_batch(model):
    greedy = Sampling(stops=(3,), pad=1, new_tokens=12, temperature=0.0)
    answers = generate(model, CONFIG, PROMPTS, greedy).answers()
    assert answers == [slowly(model, prompt, greedy) for prompt in PROMPTS]


def test_sampled_answers_equal_those_without_cache_and_differ_among_themselves(model):
    keys = noise_keys(7, 3, range(4), 3)
    answers = generate(model, CONFIG, PROMPTS, SAMPLING, samples=3, keys=keys).answers()
    assert answers == [slowly(model, PROMPTS[row // 3], SAMPLING, keys[row : row + 1]) for row in range(12)]
    assert len({tuple(answer) for answer in answers}) > 6


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_answers_do_not_depend_on_how_the_batch_is_cut(model, cut):
    whole = generate(model, CONFIG, PROMPTS, SAMPLING, 2, noise_keys(1, 0, range(4), 2)).answers()
    parts = []
    for some in (range(cut), range(cut, 4)):
        keys = noise_keys(1, 0, some, 2)
        parts += generate(model, CONFIG, [PROMPTS[i] for i in some], SAMPLING, 2, keys).answers()
    assert parts == whole


def test_the_rollout_is_what_a_plain_forward_needs(model):
    found = generate(model, CONFIG, PROMPTS, SAMPLING, 2, noise_keys(1, 0, range(4), 2))
    logits = model(found.tokens_BL, positions_BL=found.positions_BL, segments_BL=found.segments_BL)
    for row, (prompt, answer) in enumerate(zip(np.repeat(np.array(PROMPTS, object), 2), found.answers(), strict=True)):
        real = found.segments_BL[row].bool()
        assert found.tokens_BL[row][real].tolist() == [*prompt, *answer]
        torch.testing.assert_close(
            logits[row][real], model(torch.tensor([[*prompt, *answer]]))[0], atol=1e-4, rtol=1e-4
        )
        assert bool(found.ended_B[row]) == (answer[-1] == 3)


def test_noise_is_uniform_and_differs_by_every_part_of_its_key():
    numbers = uniforms(noise_keys(0, 0, range(500), 40), 0)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, 20, (0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # χ², 19 degrees of freedom: p < 1e-4
    base = noise_keys(1, 2, [3], 4)
    others = [noise_keys(2, 2, [3], 4), noise_keys(1, 3, [3], 4), noise_keys(1, 2, [4], 4), noise_keys(2, 1, [3], 4)]
    assert all(not set(base) & set(other) for other in others)
    assert uniforms(base, 0).tolist() != uniforms(base, 1).tolist()


def test_draws_follow_the_tempered_distribution():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]])
    keys = noise_keys(5, 0, range(20_000), 1)
    drawn = pick(logits.expand(20_000, 4), 0.7, uniforms(keys, 0))
    found = torch.bincount(drawn, minlength=4) / 20_000
    torch.testing.assert_close(found, torch.softmax(logits[0] / 0.7, -1), atol=0.012, rtol=0)


def test_what_does_not_fit_the_context_is_refused(model):
    with pytest.raises(ValueError, match="context of 64"):
        generate(model, CONFIG, [[4] * 60], SAMPLING)
