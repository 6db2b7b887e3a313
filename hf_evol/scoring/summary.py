"""Statistics of a score column, over the rows that have a score, with the others counted beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

BOOTSTRAP_ROWS = 100_000  # a second's work; with this many, the normal interval says the same
_RESAMPLES = 1000
_Z = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


def summarize(name: str, values: Sequence[float | None] | pa.ChunkedArray) -> dict[str, Any]:
    """Count, nulls, mean with its 95 % interval, and quartiles; None where nothing is scored.

    Quartiles interpolate linearly between neighbours. The interval ``ci95`` holds the 2.5th and 97.5th percentiles of
    the means of 1,000 bootstrap samples of the rows (Efron and Tibshirani, 1993, section 13.3), drawn with a fixed
    seed; of more than 100,000 scores it is the standard normal interval (section 13.2), to which that one tends; of a single
    score there is none.

    Args:
        name: what the summary is called.
        values: of each row, a number or null.
    """
    numbers = np.asarray(values.cast("double") if hasattr(values, "cast") else list(values), dtype=float)  # null: NaN
    scored = numbers[np.isfinite(numbers)]
    summary: dict[str, Any] = {"name": name, "n": len(scored), "nulls": len(numbers) - len(scored)}
    if not len(scored):
        return summary | dict.fromkeys(("mean", "ci95", "q1", "median", "q3"))
    mean = math.fsum(scored) / len(scored)
    q1, median, q3 = (float(value) for value in np.quantile(scored, (0.25, 0.5, 0.75)))
    return summary | {
        "mean": mean,
        "ci95": _interval(scored, mean) if len(scored) > 1 else None,
        "q1": q1,
        "median": median,
        "q3": q3,
    }


def _interval(scored: Any, mean: float) -> list[float]:
    if len(scored) > BOOTSTRAP_ROWS:
        half = _Z * float(scored.std()) / math.sqrt(len(scored))
        return [mean - half, mean + half]
    generator = np.random.default_rng(0)
    means = [scored[generator.integers(len(scored), size=len(scored))].mean() for _ in range(_RESAMPLES)]
    return [float(value) for value in np.quantile(means, (0.025, 0.975))]
