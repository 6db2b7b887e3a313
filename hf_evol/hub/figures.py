"""The card's figures, with matplotlib (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hf_evol.errors import require_extra

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def check_plots() -> None:
    """Raise `MissingExtraError` unless figures can be drawn."""
    require_extra("matplotlib", "plots", "A card with figures")


def ic_ifd_histogram(scores: Mapping[int, Sequence[float]], path: Path) -> None:
    """Draw the distribution of the scores of each round, which hold no nulls, with bars side by side, and write it as PNG."""
    import numpy as np
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    arrays = [np.asarray(values, dtype=float) for values in scores.values()]
    bins = min(40, max(8, int(sum(map(len, arrays)) ** 0.5)))
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(scores))]
    axes.hist(arrays, bins, color=colours, label=[f"round {number}" for number in scores])
    for values, colour in zip(arrays, colours, strict=True):
        axes.axvline(float(np.median(values)), color=colour, linewidth=1.5, linestyle=":")
    axes.set_xlabel("IC-IFD (dotted: median)")
    axes.set_ylabel("rows")
    axes.yaxis.get_major_locator().set_params(integer=True)  # rows are whole
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=6, frameon=False)
    figure.savefig(path, facecolor="white", metadata={"Software": None})
