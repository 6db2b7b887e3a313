"""What a CUDA device must give: the texts and losses of a CPU, in any company, and when memory runs out. Run with pytest -m gpu."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

import hf_evol
from hf_evol import models
from hf_evol.generation import batches
from hf_evol.generation.base import SamplingParams, generate
from hf_evol.generation.sampling import sample
from hf_evol.generation.transformers_engine import TransformersEngine
from hf_evol.models import ModelSpec
from hf_evol.prompts.template import chat
from hf_evol.scoring.losses import OUT_OF_MEMORY, TokenSpans, mean_losses

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

TEXTS = [f"{text} {'the sea ' * (n % 7)}" for n, text in enumerate(["write a poem", "list facts", "why", "sort"] * 6)]
KEYS = [f"{place}|{text}" for place, text in enumerate(TEXTS)]
GREEDY = SamplingParams(temperature=0.0, top_p=1.0, max_new_tokens=24)
SAMPLED = SamplingParams(temperature=0.7, top_p=0.95, max_new_tokens=24)


def texts_of(folder, params, device="cuda:0", places=None, **options):
    engine = TransformersEngine(ModelSpec(folder, device=device, dtype="float32"), **options)
    places = list(range(len(TEXTS))) if places is None else places
    done = generate(engine, [chat(TEXTS[n]) for n in places], params, [KEYS[n] for n in places], None)
    assert [completion.error for completion in done] == [None] * len(places)
    return [completion.text for completion in done]


@pytest.mark.parametrize("params", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_texts_are_those_of_a_cpu_in_any_company(tiny_model, params):
    expected = texts_of(tiny_model, params, "cpu")
    for size in (1, 7, 64):
        assert texts_of(tiny_model, params, batch_size=size) == expected
    places = random.Random(0).sample(range(len(TEXTS)), 5)
    assert texts_of(tiny_model, params, places=places) == [expected[place] for place in places]
    assert texts_of(tiny_model, params, places=[3]) == [expected[3]]


def test_sampled_tokens_are_those_of_a_cpu():
    """Over a vocabulary of a real size, where only the highest are sorted, and where all are."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 151_936, generator=generator) * torch.linspace(0, 8, 64)[:, None]
    noise = torch.rand(64, generator=generator)
    ours = sample(logits.cuda(), SAMPLED, noise.cuda()).cpu()
    assert (ours == sample(logits, SAMPLED, noise)).sum() >= 63  # one sum may round across a border


def test_a_static_batch_shrinks_when_memory_runs_out(tiny_model, monkeypatch):
    expected, real, sizes = texts_of(tiny_model, SAMPLED, "cpu"), batches.sample, []

    def hungry(logits, params, noise):
        sizes.append(len(logits))
        if len(logits) > 4:
            torch.empty(len(logits) << 36, dtype=torch.uint8, device="cuda")  # more than there is
        return real(logits, params, noise)

    monkeypatch.setattr(batches, "sample", hungry)
    assert texts_of(tiny_model, SAMPLED, batch_size=16) == expected
    assert max(sizes) == 16 and sizes[-1] <= 4


def test_steps_are_recorded_and_give_what_unrecorded_ones_give(tiny_model, monkeypatch):
    made, real = [], batches._Recorded.__init__
    monkeypatch.setattr(batches._Recorded, "__init__", lambda self, *given: made.append(real(self, *given)))
    params = SamplingParams(
        temperature=0.7, top_p=0.95, max_new_tokens=160
    )  # more columns than a batch has room for at first
    recorded = texts_of(tiny_model, params, places=range(8))
    assert 1 < len(made) < 10

    def unable(self, *_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(batches._Recorded, "__init__", unable)
    assert texts_of(tiny_model, params, places=range(8)) == recorded


def losses(folder, sequences, device, **options):
    model = models.load_model(ModelSpec(folder, device=device, dtype="float32"))
    found = [pair for batch in mean_losses(model, [[row] for row in sequences], **options) for pair in batch]
    return [values for _, values in sorted(found)]


def sequences_of(count, longest):
    numbers = np.random.default_rng(0)
    lengths = numbers.integers(2, longest, count)
    return [TokenSpans.of(numbers.integers(5, 320, n).tolist(), [(0, n // 2)], [(n // 2, n)]) for n in lengths]


def test_losses_are_those_of_a_cpu_in_any_company(tiny_model):
    sequences = sequences_of(60, 400)
    on_gpu = losses(tiny_model, sequences, "cuda:0")
    for ours, expected in zip(on_gpu, losses(tiny_model, sequences, "cpu"), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)
    for places in (random.Random(0).sample(range(60), 60), [3]):
        some = losses(tiny_model, [sequences[n] for n in places], "cuda:0")
        for again, n in zip(some, places, strict=True):
            assert again == pytest.approx(on_gpu[n], rel=1e-5)


def test_scoring_goes_on_in_smaller_batches_when_memory_runs_out(tiny_model):
    sequences = sequences_of(40, 400)
    expected = losses(tiny_model, sequences, "cuda:0")
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + (24 << 20)
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        got = losses(tiny_model, sequences, "cuda:0", batch_tokens=1 << 16)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    for ours, wanted in zip(got, expected, strict=True):
        assert OUT_OF_MEMORY not in ours and ours == pytest.approx(wanted, rel=1e-4)


def test_processes_share_a_gpu_and_give_the_rows_of_one(wide_model, seeds):
    transform = hf_evol.EvolInstruct(ModelSpec(wide_model, dtype="float32"), max_new_tokens=16, journal=False)
    alone = hf_evol.map(seeds, transform, load_from_cache_file=False)
    together = hf_evol.map(seeds, transform, num_proc=2, load_from_cache_file=False)
    assert together.to_list() == alone.to_list()
