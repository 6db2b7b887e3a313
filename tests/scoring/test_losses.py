"""Mean losses of parts: by hand, each part once, in any batch, and when memory runs out."""

import math
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build_llama
from transformers import LlamaConfig, LlamaForCausalLM

from hf_evol.scoring import token_losses
from hf_evol.scoring.losses import OUT_OF_MEMORY, TokenSpans, mean_losses, padded_length
from hf_evol.scoring.token_losses import SplitModel, split_model


def sequence(ids, *parts):
    return TokenSpans.of(ids, *parts)


def results(model, sequences, **options):
    """By place; each sequence is reported once."""
    found = [pair for batch in mean_losses(model, [[row] for row in sequences], **options) for pair in batch]
    assert sorted(place for place, _ in found) == list(range(len(sequences)))
    return [losses for _, losses in sorted(found)]


class Fixed(torch.nn.Module):
    """After a token, the same again has probability 3/6, and each of the three others 1/6."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, whole):
        super().__init__()
        self.head, self.shapes = torch.nn.Linear(4, 4, bias=False), []
        self.head.weight.data = math.log(3) * torch.eye(4)
        self.config = SimpleNamespace(get_text_config=SimpleNamespace)
        if not whole:
            self.base_model = self.states

    def get_output_embeddings(self):
        return self.head

    def states(self, input_ids, **_):
        self.shapes.append(tuple(input_ids.shape))
        return (torch.nn.functional.one_hot(input_ids, 4).float(),)

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.head(self.states(input_ids)[0]))


SAME, OTHER = math.log(2), math.log(6)


@pytest.mark.parametrize("whole", [True, False])
def test_losses_by_hand(whole):
    model = Fixed(whole)
    rows = [
        sequence([1, 1, 2], ((0, 2),), ((2, 3),), ((0, 1),), ((0, 3),)),
        sequence([3], ((0, 1),)),
        sequence([0, 1, 1, 1, 2, 2], ((1, 3), (4, 6)), ((0, 1), (3, 4)), ((5, 5),), ()),
        sequence([], ((0, 0),)),
    ]
    first, single, several, empty = results(model, rows)
    assert split_model(model).whole == whole
    assert first == [pytest.approx(SAME), pytest.approx(OTHER), None, pytest.approx((SAME + OTHER) / 2)]
    assert several == [pytest.approx((2 * OTHER + 2 * SAME) / 4), pytest.approx(SAME), None, None]
    assert single == [None] and empty == [None]


def test_a_model_run_whole_has_small_batches(monkeypatch):
    monkeypatch.setattr(token_losses, "_WHOLE_LOGITS", 4 * 40)  # forty positions of four logits
    model = Fixed(whole=True)
    split_model(model)
    model.shapes.clear()
    rows = [sequence([1, 2, 3, place % 4, place // 4], ((0, 5),)) for place in range(8)]
    assert results(model, rows) == [pytest.approx([loss]) for loss in losses_of_fixed(rows)]
    assert model.shapes == [(2, 16)] * 4


def test_a_pass_has_sequences_of_one_length_and_nothing_to_fill_it_up():
    model = Fixed(whole=False)
    split_model(model)
    model.shapes.clear()
    rows = [sequence([place % 4] * length, ((0, 9),)) for place, length in enumerate([40, 3, 16, 17, 41, 50, 48])]
    results(model, rows, batch_tokens=100)
    assert model.shapes == [(1, 64), (2, 48), (1, 48), (1, 32), (2, 16)]


def test_what_belongs_together_is_finished_soon(llama):
    """By the order given, and not after all that is longer."""
    groups = [[sequence(range(5, 105), ((0, 9),)), sequence([place, 5, 6], ((0, 3),))] for place in range(50)]
    groups = [[sequence([place, *long.ids], long.parts[0]), short] for place, (long, short) in enumerate(groups)]
    finished = [len(batch) for batch in mean_losses(llama, groups, batch_tokens=112)]  # one long sequence in a pass
    assert sum(finished) == 50 and sum(finished[:20]) >= 10


def losses_of_fixed(rows):
    pairs = [list(zip(row.ids[:-1], row.ids[1:], strict=True)) for row in rows]
    return [sum(SAME if a == b else OTHER for a, b in row) / len(row) for row in pairs]


@pytest.fixture
def counted(monkeypatch):
    """How many token losses each forward pass was asked for."""
    counts, losses = [], SplitModel.losses
    monkeypatch.setattr(SplitModel, "losses", lambda self, *args: (counts.append(len(args[2])), losses(self, *args))[1])
    return counts


@pytest.fixture(scope="module")
def llama():
    return build_llama()


def some_sequences(seed=0):
    """Questions (first part) and answers (second part), many of them repeated; and answers alone."""
    draw = np.random.default_rng(seed)
    texts = [draw.integers(5, 320, draw.integers(2, 12)).tolist() for _ in range(5)]
    texts.append([*texts[0][:-1], 4])  # but for its end, another
    rows = []
    for _ in range(24):
        question, answer = (texts[place] for place in draw.integers(0, 6, 2))
        joint = question + answer
        rows.append(sequence(joint, ((0, len(question)),), ((len(question), len(joint)),)))
        rows.append(sequence(answer, ((0, len(answer)),)))
    return rows


def plain_losses(model, row):
    """One sequence without padding, by the logits of the whole model."""
    ids = torch.tensor(row.ids, dtype=torch.long)
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return [np.mean([losses[at - 1].item() for a, b in part for at in range(max(a, 1), b)]) for part in row.parts]


@pytest.mark.parametrize("batch_tokens", [40, None])
def test_equal_sequences_are_run_once(llama, counted, batch_tokens):
    rows = some_sequences()
    losses = results(llama, rows, batch_tokens=batch_tokens)
    distinct = {(tuple(row.ids), row.parts) for row in rows}
    assert sum(counted) == sum(b - max(a, 1) for _, parts in distinct for part in parts for a, b in part)
    assert len(distinct) < len(rows)
    for row, got in zip(rows, losses, strict=True):
        assert got == pytest.approx(plain_losses(llama, row), abs=1e-5)


def test_a_group_is_given_when_all_its_sequences_are(llama):
    rows = some_sequences()
    alone, groups = results(llama, rows), [[rows[place] for place in places] for places in ([0, 1], [2], [], [5, 0, 5])]
    found = dict(pair for batch in mean_losses(llama, groups, batch_tokens=1) for pair in batch)
    assert found == {0: [*alone[0], *alone[1]], 1: alone[2], 3: [*alone[5], *alone[0], *alone[5]]}


def test_nothing_is_computed_for_parts_without_predicted_tokens(llama, counted):
    assert results(llama, [sequence([7], ((0, 1),)), sequence([7, 8, 9], ((0, 1),), ((2, 2),))]) == [[None], [None] * 2]
    assert not counted


def test_equal_parts_of_one_sequence(llama):
    row = sequence([7, 8, 9], ((0, 3),), ((0, 3),))
    assert results(llama, [row]) == [pytest.approx(plain_losses(llama, row), abs=1e-5)]


tokens = st.lists(st.integers(5, 319), min_size=2, max_size=20)


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(tokens, min_size=1, max_size=8), budget=st.integers(1, 200), order=st.randoms())
def test_no_batch_and_no_order_changes_a_loss(llama, texts, budget, order):
    rows = [sequence(text, ((0, len(text) // 2),), ((len(text) // 2, len(text)),)) for text in texts]
    alone = [results(llama, [row])[0] for row in rows]
    places = order.sample(range(len(rows)), len(rows))
    together = results(llama, [rows[place] for place in places], batch_tokens=budget)
    for place, got in zip(places, together, strict=True):
        assert got == [expected and pytest.approx(expected, rel=1e-6) for expected in alone[place]]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the products of other libraries may round otherwise")
def test_a_loss_is_the_same_to_the_last_bit_in_any_company():
    """With a model large enough for products to be cut into pieces, where shapes decide how."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=640, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=9000, max_position_embeddings=400,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    draw = np.random.default_rng(1)
    rows = [
        sequence(draw.integers(5, 9000, length), ((0, length // 3),), ((length // 3, length),))
        for length in draw.integers(2, 400, 10)
    ]
    together = results(model, rows)
    assert [results(model, [row])[0] for row in rows] == together
    assert results(model, rows, batch_tokens=500) == together
    some = [3, 9, 7, 7, 1]
    assert results(model, [rows[place] for place in some]) == [together[place] for place in some]
    threads = torch.get_num_threads()
    try:
        for other in (1, 3):
            torch.set_num_threads(other)
            assert results(model, rows) == together
            assert torch.get_num_threads() == other  # as it was
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("n_tokens", "context", "expected"),
    [(0, 512, 16), (1, 512, 16), (16, 512, 16), (17, 512, 32), (200, 512, 208), (300, 512, 320), (511, 512, 512),
     (5, 10, 10), (10, 10, 10), (3000, 2**31, 3072)],
)  # fmt: skip
def test_padded_lengths(n_tokens, context, expected):
    assert padded_length(n_tokens, context) == expected


def test_few_padded_lengths():
    lengths = [padded_length(n, 8192) for n in range(2, 8193)]
    assert len(set(lengths)) < 70 and all(a >= n and a < n + max(16, n / 8 + 1) for n, a in enumerate(lengths, 2))


class Limited:
    """A model for whose batches of more than ``most`` tokens the memory isn't enough; also counts the attempts."""

    def __init__(self, most, error=None):
        self.model, self.most, self.shapes = build_llama(), most, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        split_model(self.model)  # its check is not what is limited here
        self.model.base_model.register_forward_pre_hook(self.hook, with_kwargs=True)

    def hook(self, module, args, options):
        self.shapes.append(tuple(options["input_ids"].shape))
        if len(self.shapes) > 200:
            pytest.fail(f"The same batch again and again: {self.shapes[-3:]}")
        if options["input_ids"].numel() > self.most:
            raise self.error

    @property
    def failed(self):
        return sum(rows * width > self.most for rows, width in self.shapes)


ROWS = [sequence(range(20 + place, 20 + place + length), ((0, length),)) for place, length in enumerate([9, 4] * 8)]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
@pytest.mark.parametrize("most", [16, 140])
def test_batches_are_halved_until_they_fit_and_stay_so(llama, most, error):
    expected, limited = results(llama, ROWS), Limited(most, error)
    for got, losses in zip(results(limited.model, ROWS), expected, strict=True):
        assert got == pytest.approx(losses, abs=2e-6)
    assert 0 < limited.failed <= 6 * (torch.get_num_threads() + 1)  # with those under way
    limited.shapes.clear()
    results(limited.model, ROWS)
    assert most / 2 <= max(rows * width for rows, width in limited.shapes) <= most


def test_only_a_sequence_that_does_not_fit_alone_is_left_out(llama):
    rows = [*ROWS, sequence(range(100, 130), ((0, 5),), ((5, 30),)), sequence(range(200, 240), ((0, 40),))]
    got, expected = results(Limited(20).model, rows), results(llama, rows)
    assert [got[-2][1], got[-1][0]] == [OUT_OF_MEMORY] * 2
    assert [value for (value,) in got[:-2]] == pytest.approx([value for (value,) in expected[:-2]], abs=2e-6)


def test_other_errors_are_raised():
    with pytest.raises(RuntimeError, match="shapes"):
        results(Limited(1, RuntimeError("shapes cannot be multiplied")).model, ROWS)


def test_one_sequence_that_does_not_fit():
    assert results(Limited(5).model, [sequence(range(20, 30), ((0, 10),))]) == [[OUT_OF_MEMORY]]


def test_a_part_shared_with_a_sequence_that_does_not_fit(llama):
    short = sequence(range(20, 28), ((0, 5),), ((5, 8),))
    long = sequence([*range(20, 25), *range(100, 120)], ((0, 5),), ((5, 25),))
    got = results(Limited(20).model, [long, short], batch_tokens=1)
    assert got[0][1] == OUT_OF_MEMORY
    assert got[1] == pytest.approx(results(llama, [short])[0], abs=2e-6)


def test_batch_tokens_hold_after_memory_ran_out():
    limited = Limited(70)
    results(limited.model, ROWS)
    limited.shapes.clear()
    results(limited.model, ROWS, batch_tokens=20)
    assert max(rows * width for rows, width in limited.shapes) <= 20


def test_what_stops_in_the_middle_leaves_the_threads_as_they_were(llama):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stopped = mean_losses(llama, [[row] for row in ROWS], batch_tokens=1)
        with closing(stopped) as losses:
            next(losses), next(losses)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
