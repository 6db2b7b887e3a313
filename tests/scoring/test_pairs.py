"""Statuses and ratios; and that no arrangement of the pairs changes a score."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scored_rows import CONVENTIONS, ROWS, batch_of, close
from tiny_models import build_tokenizer

from hf_evol import columns as col
from hf_evol import models
from hf_evol.models import ModelSpec
from hf_evol.scoring import pairs
from hf_evol.scoring.ic_ifd import IcIfd
from hf_evol.scoring.pairs import PairScorer, make_pair

texts = st.text(max_size=12) | st.sampled_from(
    ["Write a poem.", "the sea", "<|end|>", "👋 é\n\n", "x" * 600, "a\ufffdb"]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=6),
    convention=st.sampled_from(CONVENTIONS),
    budget=st.none() | st.integers(1, 200),
    window=st.integers(1, 6),
    max_length=st.none() | st.integers(1, 40),
    truncate=st.booleans(),
    order=st.randoms(),
)
def test_any_texts_give_scores_or_reasons_in_any_order(
    tiny_model, rows, convention, budget, window, max_length, truncate, order
):
    spec, common = ModelSpec(tiny_model), {"max_length": max_length, "truncate": truncate}
    loaded = models.load_model(spec), models.load_tokenizer(spec)
    pairs_ = [make_pair(*row) for row in rows]
    alone = [PairScorer(convention, **common).score(*loaded, [pair])[0] for pair in pairs_]
    places = order.sample(range(len(rows)), len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_WINDOW", window)
        scorer = PairScorer(convention, batch_tokens=budget, **common)
        together = scorer.score(*loaded, [pairs_[place] for place in places])
    assert together == [close(alone[place], 1e-5) for place in places]
    for record in together:
        ratios = [record[col.IC_IFD], record[col.IFD]]
        if record[col.IC_IFD_STATUS] in ("ok", "truncated"):
            assert all(math.isfinite(value) and value > 0 for value in ratios)
        else:
            assert ratios == [None, None]


def test_a_stream_can_be_left(tiny_model, monkeypatch):
    monkeypatch.setattr(pairs, "_WINDOW", 2)
    loaded = models.load_model(ModelSpec(tiny_model)), models.load_tokenizer(ModelSpec(tiny_model))
    rows = [make_pair(*row) for row in ROWS if row[0]]
    expected, stream = PairScorer().score(*loaded, rows), PairScorer().stream(*loaded, rows)
    found = {}
    while len(found) < 3:
        found |= next(stream)
    stream.close()
    assert len(found) < len(rows)
    assert found == {place: close(expected[place]) for place in found}
    assert PairScorer().score(*loaded, rows) == expected


@pytest.mark.parametrize(
    ("instruction", "output", "status"),
    [
        (None, "x y", "invalid_input"), ("q", None, "invalid_input"), (" ", "x", "invalid_input"), (3, "x", "invalid_input"),
        ("q", "long answer", "short_question"), ("question", "x", "short_answer"), ("q" * 600, "ab", "too_long"),
        ("question", "b" * 600, "too_long"),
    ],
)  # fmt: skip
def test_reasons(tiny_model, instruction, output, status):
    rows = [(instruction, output), ("Write it.", "An answer.")]
    out = IcIfd(tiny_model, journal=False)(batch_of(rows))
    assert out[col.IC_IFD_STATUS] == [status, "ok"]
    assert out[col.IC_IFD][0] is None and out[col.IC_IFD][1] > 0


def test_an_input_that_is_no_text(tiny_model):
    batch = batch_of([("Write it.", "An answer.")] * 3) | {"input": [3, None, ""]}
    out = IcIfd(tiny_model, journal=False)(batch)
    assert out[col.IC_IFD_STATUS] == ["invalid_input", "ok", "ok"] and out[col.IC_IFD][1] == out[col.IC_IFD][2]


def test_a_text_that_is_not_unicode(tiny_model):
    half = "half a pair: \ud83d"
    batch = batch_of([(half, "An answer."), ("Write it.", "An answer."), ROWS[0]]) | {"input": ["", half, ""]}
    assert IcIfd(tiny_model, journal=False)(batch)[col.IC_IFD_STATUS] == ["invalid_input", "invalid_input", "ok"]


class Copying(torch.nn.Module):
    """After each letter comes the same again; any other token has the logit ``other``."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, other):
        super().__init__()
        self.other, self.config = other, SimpleNamespace(get_text_config=SimpleNamespace)

    def get_output_embeddings(self):
        return torch.nn.Linear(1, 320)

    def forward(self, input_ids, **_):
        other = torch.where(input_ids >= 18, self.other, -1.0)[..., None]  # the first tokens are no letters
        return SimpleNamespace(logits=torch.where(torch.nn.functional.one_hot(input_ids, 320) > 0, 0.0, other))


@pytest.mark.parametrize(
    ("other", "convention", "answer", "expected"),
    [
        (-1e4, "paper", "aaa", ("zero_loss", 1e4, 5e3, 0.0)),  # given Q, the newline and the first a are new
        (-1e4, "superfiltering", "aab", ("not_finite", 1e4, 2e4 / 3, 5e3)),  # the ratio is e to the 1667
        (-math.inf, "paper", "aaa", ("not_finite", None, None, 0.0)),
        (-math.inf, "exact", "ab", ("not_finite", None, None, None)),
        (-math.nan, "exact", "ab", ("not_finite", None, None, None)),
    ],
)
def test_losses_that_give_no_ratio(other, convention, answer, expected):
    (record,) = PairScorer(convention).score(Copying(other), build_tokenizer(), [make_pair("xyx", answer)])
    names = (col.IC_IFD_STATUS, col.LOSS_Q, col.LOSS_A_GIVEN_Q, col.LOSS_A)
    assert tuple(record[name] for name in names) == pytest.approx(expected)
    assert record[col.IC_IFD] is record[col.IFD] is None and record[col.N_TOKENS_A] == len(answer)
