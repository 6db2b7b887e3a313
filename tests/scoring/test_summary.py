import pytest

from hf_evol.scoring.summary import summarize


def test_summary_counts_what_it_leaves_out():
    """The mean of three draws from 1, 2 and 3 is 1, or 3, once in 27 times: more often than once in 40."""
    assert summarize("x", [1.0, None, 3.0, float("nan"), 2.0]) == {
        "name": "x", "n": 3, "nulls": 2, "mean": 2.0, "ci95": [1.0, 3.0], "q1": 1.5, "median": 2.0, "q3": 2.5,
    }  # fmt: skip
    empty = summarize("x", [None])
    assert empty["n"] == 0 and empty["nulls"] == 1 and empty["mean"] is None and empty["ci95"] is None


def test_the_interval_is_that_of_a_normal_distribution_for_many_values():
    values = [place / 400 for place in range(400)]  # uniform: the standard deviation is the root of 1/12
    half = 1.96 * (1 / 12) ** 0.5 / 400**0.5
    low, high = summarize("x", values)["ci95"]
    assert (low, high) == pytest.approx((0.49875 - half, 0.49875 + half), abs=half / 8)
