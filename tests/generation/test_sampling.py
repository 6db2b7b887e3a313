from itertools import product

import numpy as np
import pytest
import torch

from hf_evol.errors import ConfigError
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.sampling import row_key, sample, uniforms


def test_noise_belongs_to_the_key_alone():
    assert np.array_equal(uniforms("b", 5), uniforms("b", 9)[:5])
    assert not np.array_equal(uniforms("a", 9), uniforms("b", 9))
    assert (
        len({row_key(s, i, r, stage) for s in (0, 1) for i in ("a-1", "a-2") for r in (0, 1) for stage in "xy"}) == 16
    )


def test_sampled_distribution_is_the_nucleus():
    """Against the distribution computed by hand: chi-squared over 20,000 draws."""
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0, -1.0, -6.0])
    params = SamplingParams(temperature=0.7, top_p=0.9)
    p = np.exp(logits.numpy() / 0.7)
    p /= p.sum()
    inside, total = [], 0.0
    for token in np.argsort(-p):
        if total < 0.9:
            inside.append(token)
        total += p[token]
    expected = np.zeros(6)
    expected[inside] = p[inside] / p[inside].sum()
    n = 20_000
    noise = torch.tensor(np.concatenate([uniforms(f"key {i}", 1) for i in range(n)]))
    drawn = np.bincount(sample(logits.expand(n, -1), params, noise).numpy(), minlength=6)
    assert drawn[expected == 0].sum() == 0
    live = expected > 0
    chi2 = ((drawn[live] - n * expected[live]) ** 2 / (n * expected[live])).sum()
    assert chi2 < 20  # 3 degrees of freedom: 1 in 5,000 would be 19.7


def plainly_chosen(ordered, top_p, noise):
    """Where the chosen one of ordered probabilities stands; sums as a CPU makes them, in double precision and rounded."""
    cumulative = np.cumsum(ordered, dtype=np.float64).astype(np.float32)
    size = np.count_nonzero(cumulative - ordered < np.float32(top_p))
    return min(size - 1, np.count_nonzero(cumulative <= np.float32(noise) * cumulative[size - 1]))


@pytest.mark.parametrize("vocabulary", [100, 49_152, 262_144])
def test_the_token_is_that_of_the_whole_vocabulary_sorted(vocabulary):
    """Also where the most probable tokens, which are sorted first, are not the nucleus, or end among equal ones."""
    noise = torch.randn(vocabulary, generator=torch.Generator().manual_seed(0))
    shuffled = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(1))
    logits = torch.stack(
        [
            noise * 3,
            noise * 20,  # peaked
            noise * 0.01,  # flat
            (noise * 2).round(),  # of many equal ones
            torch.zeros(vocabulary),
            (noise * 3).bfloat16().float(),
            torch.where(shuffled < 60, noise, -torch.inf),
            torch.where(shuffled < 1030, 0.0, -30.0),  # more equal ones than are sorted first
        ]
    )
    logits = logits[:4] if vocabulary > 100_000 else logits  # for time
    for temperature in (0.01, 0.7, 5.0):
        probabilities = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1).numpy()
        orders = [np.lexsort((np.arange(vocabulary), -row)) for row in probabilities]
        for top_p, number in product((0.5, 0.95, 1.0), (0.0, 0.7, 1 - 1e-9)):
            tokens = sample(logits, SamplingParams(temperature, top_p), torch.full((len(logits),), number))
            assert tokens.tolist() == [
                order[plainly_chosen(row[order], top_p, number)]
                for row, order in zip(probabilities, orders, strict=True)
            ]


@pytest.mark.parametrize("top_p", [1.0, 1e-9])
def test_edges_of_the_noise(top_p):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    params = SamplingParams(temperature=1.0, top_p=top_p)
    best = logits.argmax(-1)
    assert torch.equal(sample(logits, params, torch.zeros(3)), best)
    last = sample(logits, params, torch.full((3,), 1 - 1e-9))
    assert torch.equal(last, best if top_p < 1 else logits.argmin(-1))


def test_a_tiny_temperature_is_greedy():
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(1)) * 50
    drawn = sample(logits, SamplingParams(temperature=1e-40), torch.full((4,), 0.9))
    assert torch.equal(drawn, logits.argmax(-1))


def test_greedy_needs_no_noise():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert sample(logits, SamplingParams(temperature=0.0), None).tolist() == [1]


@pytest.mark.parametrize("wrong", [{"temperature": -0.1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0},
                                   {"temperature": float("nan")}, {"temperature": float("inf")}])  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SamplingParams(**wrong)
