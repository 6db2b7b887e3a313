import math

import numpy as np
import pyarrow as pa
import pytest

from hf_evol.scoring import summary
from hf_evol.scoring.summary import summarize


def test_summary_counts_what_it_leaves_out():
    """The mean of three draws from 1, 2 and 3 is 1, or 3, once in 27 times: more often than once in 40."""
    assert summarize("x", [1.0, None, 3.0, float("nan"), 2.0]) == {
        "name": "x", "n": 3, "nulls": 2, "mean": 2.0, "ci95": [1.0, 3.0], "q1": 1.5, "median": 2.0, "q3": 2.5,
    }  # fmt: skip
    empty = summarize("x", [None])
    assert empty["n"] == 0 and empty["nulls"] == 1 and empty["mean"] is None and empty["ci95"] is None


def test_a_single_score_has_no_interval():
    one = summarize("x", [2.5, None])
    assert (one["n"], one["mean"], one["q1"], one["ci95"]) == (1, 2.5, 2.5, None)


def test_the_interval_is_that_of_a_normal_distribution_for_many_values():
    values = [place / 400 for place in range(400)]  # uniform: the standard deviation is the root of 1/12
    half = 1.96 * (1 / 12) ** 0.5 / 400**0.5
    low, high = summarize("x", values)["ci95"]
    assert (low, high) == pytest.approx((0.49875 - half, 0.49875 + half), abs=half / 8)


@pytest.mark.parametrize("values", [[1.0, None, 3.0, math.nan, 2.0, math.inf], [None, None], [], [5]], ids=str)
def test_arrow_data_gives_what_a_list_gives(values):
    pieces = [values[:2], values[2:]]
    chunked = pa.chunked_array([pa.array(piece, pa.float64()) for piece in pieces])
    assert summarize("x", chunked) == summarize("x", values)


def test_beyond_the_boundary_the_interval_is_the_normal_one(monkeypatch):
    """A skewed column, as scores are. The resampled bounds vary by 4 % of half the interval with the resamples drawn."""
    values = np.random.default_rng(3).lognormal(-1, 0.8, 20_001)
    monkeypatch.setattr(summary, "BOOTSTRAP_ROWS", 20_000)
    normal = summarize("x", values)
    half = 1.959964 * math.sqrt(sum((values - values.mean()) ** 2) / len(values)) / math.sqrt(len(values))
    assert normal["ci95"] == pytest.approx([values.mean() - half, values.mean() + half], rel=1e-9)
    monkeypatch.setattr(summary, "BOOTSTRAP_ROWS", 20_001)
    resampled = summarize("x", values)
    assert resampled["ci95"] != normal["ci95"]
    assert resampled["ci95"] == pytest.approx(normal["ci95"], abs=half / 8)
    assert {**resampled, "ci95": None} == {**normal, "ci95": None}


def test_the_boundary_itself_is_resampled(monkeypatch):
    monkeypatch.setattr(summary, "BOOTSTRAP_ROWS", 3)
    assert summarize("x", [1.0, 2.0, 3.0])["ci95"] == [1.0, 3.0]
    low, high = summarize("x", [1.0, 2.0, 3.0, 2.0])["ci95"]
    assert (low, high) == pytest.approx((2 - 1.959964 * 0.5**0.5 / 2, 2 + 1.959964 * 0.5**0.5 / 2))
