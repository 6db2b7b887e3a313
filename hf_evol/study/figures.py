"""A study's figures, with matplotlib (extra ``plots``), as SVG for its report and PNG for a card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hf_evol import columns as col
from hf_evol.hub.card import number
from hf_evol.hub.figures import COLOURS
from hf_evol.study.results import LABEL, SEEDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawing = tuple[str, "Figure", str, str]  # name, figure, alternative text, caption

INK, PAPER, GREY = "#1f2328", "#ffffff", "#8b949e"  # the report puts its own in the place of the first two
_LINES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1, 1, 1, 1, 1))), ("P", (0, (1, 1))))
_LEVELS = ("#fde7a9", "#f6b65e", "#e07a3f", "#a8433f", "#5b2a5e")  # easy to hard, and light to dark
_RC = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
} | dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)


def draw(results: Mapping[str, Any], rows: Dataset, folder: Path) -> list[dict[str, Any]]:
    """Draw what ``results.json`` and the rows allow, as in the paper's "Analyses".

    The same data gives the same SVG bytes, on the same release of matplotlib.

    Returns:
        For each figure ``name``, ``path_svg``, ``path_png``, ``alt`` and ``caption``: ``levels``, ``by_round_<measure>`` of each
        measure where there are rounds, ``mnd_density`` and ``top1_density``.
    """
    drawings = chain(
        _levels(results),
        *(_by_round(results, measure) for measure in results["measures"] if results["rounds"]),
        _density(results, rows, "mnd", "distance to the nearest other row", "Minimum neighbour distances"),
        _density(results, rows, "top1_probs", "probability of the most likely token", "Top-1 probabilities", 1),
    )
    return _saved(drawings, folder)


def draw_steps(results: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Draw what `hf_evol.study.by_step.compare_steps` found of each step; gives what `draw` gives of a figure."""
    return _saved(_steps(results), folder)[0]


def _saved(drawings: Iterable[Drawing], folder: Path) -> list[dict[str, Any]]:
    from matplotlib import rc_context

    no_metadata, made = dict.fromkeys(("Date", "Creator", "Format", "Type")), []
    with rc_context(_RC):
        for name, figure, alt, caption in drawings:
            folder.mkdir(parents=True, exist_ok=True)
            svg, png = folder / f"{name}.svg", folder / f"{name}.png"
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(svg, facecolor=PAPER, metadata=no_metadata)
            figure.savefig(png, facecolor=PAPER, metadata={"Software": None})
            made.append({"name": name, "path_svg": svg, "path_png": png, "alt": alt, "caption": caption})
    return made


def _steps(results: Mapping[str, Any]) -> Iterator[Drawing]:
    """A panel for each measure."""
    names, said = [entry["step"].replace("_", " ") for entry in results["steps"]], []
    figure, panels = _panel(0.9 + 0.3 * len(names), len(results["measures"]), squeeze=False, sharey=True)
    figure.set_figwidth(1.2 + 1.6 * panels.size)
    for axes, measure, colour in zip(panels[0], results["measures"], cycle(COLOURS)):
        found = {place: entry[measure["name"]] for place, entry in enumerate(results["steps"])}
        found = {place: of for place, of in found.items() if of["n"]}
        means, errors = _bars(list(found.values()))
        axes.errorbar(means, list(found), xerr=errors, color=colour, marker="o", capsize=3)
        axes.set_xlabel(_title(measure))
        axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
        axes.locator_params(axis="x", nbins=4)
        values = ", ".join(f"{names[place]} {number(of['mean'])}" for place, of in found.items())
        said.append(f"{_title(measure)}: {values}")
    panels[0][0].set_yticks(range(len(names)), names)
    panels[0][0].set_ylim(len(names) - 0.5, -0.5)
    yield "steps", figure, f"Means of each step. {'; '.join(said)}.", "Means of each step's rows, with 95 % intervals."


def colours(results: Mapping[str, Any]) -> dict[str, str]:
    """The colour of each label and of the seeds."""
    labels = (model["label"] for model in results[f"{results['role']}s"])
    return dict(zip(labels, cycle(COLOURS))) | {SEEDS: GREY}


def _styles(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How each label's line is drawn."""
    styles = zip(colours(results).items(), cycle(_LINES))
    return {
        label: {"label": label, "color": colour, "marker": marker, "linestyle": line, "markersize": 5}
        for (label, colour), (marker, line) in styles
        if label != SEEDS
    }


def _panel(height: float, columns: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(7, height), dpi=150, layout="constrained")
    return figure, figure.subplots(1, columns, **kwargs)


def _legend(figure: Figure) -> None:
    """What has a label, once, above the figure."""
    handles, names = figure.axes[-1].get_legend_handles_labels()  # only the first panel may lack some
    found = dict(zip(names, handles, strict=True))
    place = {"loc": "outside upper left", "ncols": max(1, 96 // (max(map(len, found)) + 6))}
    figure.legend(found.values(), found.keys(), columnspacing=1.4, handlelength=2.2, **place)


def _title(measure: Mapping[str, Any]) -> str:
    return measure["label"] + (f" ({measure['unit']})" if measure["unit"] else "")


def _when(round_: int) -> str:
    return f"round {round_}" if round_ else SEEDS


def _at(results: Mapping[str, Any], measure: str, label: str) -> dict[int, Mapping[str, Any]]:
    """A label's summaries by round, with the seeds' as round 0 where they have one; none without a mean."""
    found = [e for e in results["summaries"] if e["measure"] == measure and e[results["role"]] in (label, SEEDS)]
    return {e["round"]: e for e in sorted(found, key=lambda e: e["round"]) if e["mean"] is not None}


def _bars(entries: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Means, and how far their intervals reach below and above."""
    means = np.array([entry["mean"] for entry in entries], dtype=float)
    ends = [entry["ci95"] or 2 * [entry["mean"]] for entry in entries]
    low, high = np.reshape(ends, (-1, 2)).T
    return means, np.clip([means - low, high - means], 0, None)


def _by_round(results: Mapping[str, Any], measure: Mapping[str, Any]) -> Iterator[Drawing]:
    styles, name, title = _styles(results), measure["measure"], _title(measure)
    series = {label: found for label in styles if any(found := _at(results, name, label))}
    if not series:
        return
    figure, axes = _panel(2.9)
    for place, (label, entries) in enumerate(series.items()):
        shift = 0.05 * (place - (len(series) - 1) / 2)  # so that intervals don't hide each other
        x, (means, errors) = [r + shift if r else 0 for r in entries], _bars(list(entries.values()))
        axes.errorbar(x, means, errors, **styles[label], capsize=3, elinewidth=1.2)
    if seeds := entries.get(0):  # the same for all, and above them
        axes.errorbar([0], *_bars([seeds]), fmt="D", color=GREY, capsize=3, zorder=3, markersize=5)
    rounds = sorted(set(chain(*series.values())))
    axes.set_xticks(rounds, map(_when, rounds))
    axes.set(xlim=(rounds[0] - 0.3, rounds[-1] + 0.3), ylabel=title)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    _legend(figure)
    said = [
        f"{label}: " + ", ".join(f"{_when(r)} {number(entry['mean'])}" for r, entry in entries.items())
        for label, entries in series.items()
    ]
    caption = f"Mean {title} in each round, with 95 % intervals."
    yield f"by_round_{name}", figure, f"Mean {title}. {'; '.join(said)}.", caption


def _levels(results: Mapping[str, Any]) -> Iterator[Drawing]:
    """Stacked horizontal bars, those of a round next to each other."""
    from matplotlib.colors import to_rgb

    rated = [entry for entry in results["levels"] if any(entry["counts"].values())]
    if not rated:
        return
    rated.sort(key=lambda entry: entry["round"])
    rounds = sorted({entry["round"] for entry in rated})
    places = [place + 0.45 * rounds.index(entry["round"]) for place, entry in enumerate(rated)]
    whose = [(entry[results["role"]], entry["round"]) for entry in rated]
    titles = [f"{label}, {_when(round_)}" if round_ else label for label, round_ in whose]
    figure, axes = _panel(1.2 + 0.3 * places[-1])
    said = []
    for y, title, entry in zip(places, titles, rated, strict=True):
        left, total, shares = 0.0, sum(entry["counts"].values()), []
        for (level, count), colour in zip(entry["counts"].items(), _LEVELS, strict=True):
            share = 100 * count / total
            shares.append(f"{level} {share:.0f} % ({count})")
            axes.barh(y, share, 0.82, left, label=level, color=colour, edgecolor=PAPER, linewidth=0.8)
            if share >= 6:
                ink = "#111111" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "#fdfdfd"
                axes.text(left + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=8.5, color=ink)
            left += share
        said.append(f"{title}: {', '.join(shares)}")
    axes.set_yticks(places, titles)
    axes.set(xlim=(0, 100), ylim=(places[-1] + 0.6, -0.6), xlabel="share of instructions (%)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _legend(figure)
    unreadable, failed = (sum(entry[name] for entry in results["levels"]) for name in ("unreadable", "failed"))
    caption = "Difficulty levels, as the judge sees them."
    caption += f" {unreadable} replies could not be read and are left out." if unreadable else ""
    caption += f" For {failed} instructions, requests failed." if failed else ""
    yield "levels", figure, f"Shares of difficulty levels. {'; '.join(said)}.", caption


def _density(
    results: Mapping[str, Any], rows: Dataset, column: str, title: str, caption: str, high: float = np.inf
) -> Iterator[Drawing]:
    if column not in rows.column_names:
        return
    frame = rows.select_columns([LABEL, col.ROUND, column]).to_pandas().explode(column).dropna()
    frame = frame[frame[col.ROUND] == frame[col.ROUND].max()]
    values = {label: frame.loc[frame[LABEL] == label, column].to_numpy(float) for label in _styles(results)}
    values = {label: found for label, found in values.items() if len(set(found)) > 1}
    if not values:
        return
    figure, axes = _panel(2.9)
    every = np.concatenate(list(values.values()))
    around = 0.1 * np.ptp(every)
    x = np.linspace(max(every.min() - around, 0), min(every.max() + around, high), 256)
    x = np.union1d(x, np.quantile(every, np.linspace(0, 1, 256)))  # so that no narrow peak falls between
    for label, found in values.items():
        y = density(found, x, high)
        axes.plot(x, y, **_styles(results)[label] | {"marker": None, "linewidth": 1.7})
        axes.fill_between(x, y, color=colours(results)[label], alpha=0.08, linewidth=0)
    axes.margins(x=0.01)
    axes.set(ylim=(0, None), xlabel=title, ylabel="density")
    _legend(figure)
    said = "; ".join(f"{label}: {number(float(np.median(found)))}" for label, found in values.items())
    round_, name = frame[col.ROUND].iloc[0], f"{column.removesuffix('_probs')}_density"
    yield name, figure, f"Density of {title} in round {round_}. Medians: {said}.", f"{caption}, round {round_}."


def density(values: np.ndarray, x: np.ndarray, high: float) -> np.ndarray:
    """Gaussian kernel density by Silverman's rule at x; what lies beyond 0 or ``high`` is reflected."""
    from matplotlib.mlab import GaussianKDE

    kernels = GaussianKDE(values, "silverman")
    return kernels(x) + kernels(-x) + kernels(2 * high - x)
