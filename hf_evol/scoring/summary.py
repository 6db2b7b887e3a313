"""Statistics of a score column, over the rows that have a score, with the others counted beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def summarize(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """Count, nulls, mean and quartiles of a score; the statistics are None where nothing is scored.

    Quartiles interpolate linearly between neighbours.
    """
    import numpy as np

    scored = [value for value in values if value is not None and math.isfinite(value)]
    summary: dict[str, Any] = {"name": name, "n": len(scored), "nulls": len(values) - len(scored)}
    if not scored:
        return summary | dict.fromkeys(("mean", "q1", "median", "q3"))
    q1, median, q3 = np.quantile(scored, (0.25, 0.5, 0.75))
    return summary | {
        "mean": math.fsum(scored) / len(scored),
        "q1": float(q1),
        "median": float(median),
        "q3": float(q3),
    }
