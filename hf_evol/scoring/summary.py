"""Statistics of a score column, over the rows that have a score, with the others counted beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_RESAMPLES = 1000


def summarize(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """Count, nulls, mean with its 95 % interval, and quartiles; None where nothing is scored.

    Quartiles interpolate linearly between neighbours. The interval ``ci95`` holds the 2.5th and 97.5th percentiles
    of the means of 1,000 bootstrap samples of the rows (Efron and Tibshirani, 1993, section 13.3), drawn with a fixed
    seed.
    """
    import numpy as np

    scored = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=float)
    summary: dict[str, Any] = {"name": name, "n": len(scored), "nulls": len(values) - len(scored)}
    if not len(scored):
        return summary | dict.fromkeys(("mean", "ci95", "q1", "median", "q3"))
    generator = np.random.default_rng(0)
    means = [scored[generator.integers(len(scored), size=len(scored))].mean() for _ in range(_RESAMPLES)]
    q1, median, q3 = (float(value) for value in np.quantile(scored, (0.25, 0.5, 0.75)))
    return summary | {
        "mean": math.fsum(scored) / len(scored),
        "ci95": [float(value) for value in np.quantile(means, (0.025, 0.975))],
        "q1": q1,
        "median": median,
        "q3": q3,
    }
