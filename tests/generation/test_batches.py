"""Batches in one cache, by token ids: against `generate` of transformers, one prompt at a time."""

import random
from functools import wraps
from itertools import pairwise

import pytest
import torch
from tiny_models import build_llama

from hf_evol.generation import batches
from hf_evol.generation.base import SamplingParams
from hf_evol.generation.transformers_engine import _Request

STOP = 3
GREEDY = SamplingParams(temperature=0.0, top_p=1.0)
SAMPLED = SamplingParams(temperature=0.7, top_p=0.95, top1_probs=2)


@pytest.fixture(scope="module")
def model():
    model = build_llama()
    model.generation_config.eos_token_id = STOP
    return model


@pytest.fixture(scope="module")
def requests():
    """Prompts of very different lengths, of which some begin alike, as beginnings of beginnings, or are the same."""
    draw = random.Random(0)
    tokens = lambda n: [draw.randrange(5, 320) for _ in range(n)]  # noqa: E731
    first, second = tokens(40), tokens(70)
    inner = first + tokens(30)
    prompts = [[7], [7], [8, 9], inner[:50], inner, inner]
    prompts += [start + tokens(n) for start in ([], first, inner, second) for n in (1, 5, 12, 30)]
    draw.shuffle(prompts)
    limits = [draw.choice((1, 6, 20, 40)) for _ in prompts]
    return {
        100 + n: _Request(prompt, f"key {n}", limit)
        for n, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    }


def generated(model, requests, params=GREEDY, size=64):
    done = list(batches.generate_tokens(model, requests, params, {STOP}, size))
    assert len({place for place, *_ in done}) == len(done) == len(requests)
    return {place: (tokens, probs) for place, tokens, probs in done}


@pytest.fixture(scope="module")
def expected(model, requests):
    texts = {}
    for place, request in requests.items():
        ids = torch.tensor([request.prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.limit, do_sample=False, pad_token_id=0
        )
        texts[place] = out[0, len(request.prompt) :].tolist()
    assert sum(tokens[-1] == STOP for tokens in texts.values()) > 2
    return texts


@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_texts_are_those_of_the_library(model, requests, expected, size):
    assert {place: tokens for place, (tokens, _) in generated(model, requests, size=size).items()} == expected


def test_sampled_texts_are_the_same_in_any_company(model, requests):
    together = generated(model, requests, SAMPLED)
    alone = {place: generated(model, {place: request}, SAMPLED)[place] for place, request in requests.items()}
    for got in (alone, generated(model, requests, SAMPLED, size=5)):
        assert {place: tokens for place, (tokens, _) in got.items()} == {
            place: tokens for place, (tokens, _) in together.items()
        }
        for place, (tokens, probs) in got.items():
            assert probs == pytest.approx(together[place][1], abs=1e-5) and len(probs) == min(2, len(tokens))


def test_a_common_beginning_is_read_once_and_a_step_copies_no_cache(model, monkeypatch):
    read, steps, forward = [], [], model.forward

    @wraps(forward)
    def counted(*args, **inputs):
        out = forward(*args, **inputs)
        (steps if inputs["input_ids"].shape[1] == 1 else read).append(inputs["input_ids"].numel())
        if isinstance(cache := inputs.get("cache") or inputs.get("past_key_values"), batches.Cache):
            rooms.update(room.data_ptr() for layer in cache.layers for room in getattr(layer, "room", ()))
        return out

    rooms = set()
    batches._cache_name(model)  # asked once
    monkeypatch.setattr(model, "forward", counted)
    common = list(range(10, 210))
    requests = {n: _Request([*common, 220 + n, 300, 301], str(n), 30) for n in range(20)}
    done = list(batches.generate_tokens(model, requests, GREEDY, set(), 64))
    assert len(done) == 20
    assert sum(read) < 200 + 2 * 20 + 20
    assert sum(steps) == 20 * 30
    assert len(rooms) <= 2 * 2 * 2  # keys and values of two layers: for the first row, and for all


def test_memory_bounds_a_batch_and_rows_that_outgrow_it_go_on_later(model, monkeypatch):
    requests = {n: _Request(list(range(10 + n, 20 + n)), f"key {n}", 40) for n in range(20)}
    expected, sizes, step = generated(model, requests, SAMPLED), [], batches._Shared.step

    def noted(self, tokens):
        sizes.append((len(tokens), len(tokens) * (max(self.lengths) + 1)))
        return step(self, tokens)

    monkeypatch.setattr(batches._Shared, "step", noted)
    column = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, dimensions, bytes
    monkeypatch.setattr(batches, "_SPARE", 1)
    monkeypatch.setattr(batches, "_free_bytes", lambda device: 400 * column / batches._SHARE)
    got = generated(model, requests, SAMPLED)
    assert [got[n][0] for n in range(20)] == [expected[n][0] for n in range(20)]
    assert max(rows for rows, _ in sizes) == 20
    assert max(columns for _, columns in sizes) <= 400


def test_groups_cost_the_least_of_all_divisions():
    draw = random.Random(1)
    prompts = sorted([draw.randrange(2) for _ in range(draw.randrange(1, 9))] for _ in range(8))
    before = [0, 1, 1]

    def cost(ends):
        total, last = 0, before
        for first, end in pairwise([0, *ends]):
            group = prompts[first:end]
            shared = min(batches._common(last, prompt) for prompt in group)
            total, last = total + 3 + len(group) * (max(map(len, group)) - shared), group[-1]
        return total

    divisions = [[n for n in range(1, 8) if bits >> n & 1] + [8] for bits in range(0, 256, 2)]
    assert cost([end for _, end in batches._groups(before, prompts, 3)]) == min(map(cost, divisions))
    assert list(batches._groups(before, [], 3)) == []


def test_a_row_that_ends_makes_room_for_another(model, requests, monkeypatch):
    sizes, step = [], batches._Shared.step
    monkeypatch.setattr(batches._Shared, "step", lambda self, tokens: sizes.append(len(tokens)) or step(self, tokens))
    generated(model, requests, size=8)
    busy = sizes[1 : len(sizes) - sizes[::-1].index(8)]  # from the second step on, until none wait
    assert min(busy) >= 6 and max(busy) == 8


def test_windows_and_other_layers_are_batched_as_the_library_caches_them(requests):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16, initializer_range=0.3, eos_token_id=STOP, pad_token_id=0,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    few = dict(list(requests.items())[:8])
    got = generated(model, few, size=4)
    for place, request in few.items():
        out = model.generate(torch.tensor([request.prompt]), max_new_tokens=request.limit, do_sample=False)
        assert got[place][0] == out[0, len(request.prompt) :].tolist()


def test_a_text_that_only_repeats_itself_is_ended():
    model = build_llama(spread=0.02)
    prompts = {place: _Request([5 + 7 * place, 9], "key", 400) for place in range(8)}
    done = {place: tokens for place, (tokens, _) in generated(model, prompts).items()}
    ended = [place for place, tokens in done.items() if len(tokens) < 400 and tokens[-1] != STOP]
    assert ended
    for place in ended:
        ids = torch.tensor([prompts[place].prompt])
        whole = model.generate(ids, max_new_tokens=400, do_sample=False, pad_token_id=0)[0, 2:].tolist()
        assert whole[: len(done[place])] == done[place] and len(whole) == 400


@pytest.mark.parametrize(
    ("tokens", "loops"),
    [
        ([1] * 256, True),
        ([1] * 255, False),
        ([7, 8, 9, *[1, 2, 3] * 400][:320], True),
        ([*range(64)] * 4, True),
        ([*range(65)] * 8, False),
        ([*range(64)] * 3 + [*range(63), 99], False),
        ([5] * 255 + [6], False),
    ],
)
def test_what_counts_as_repeating(tokens, loops):
    assert batches._loops(tokens) is loops
