"""A study's figures, with matplotlib (extra ``plots``), as SVG for its report and PNG for a card."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_evol.errors import require_extra
from hf_evol.hub.card import number
from hf_evol.study.canvas import GREY, INK, PAPER, StudyData, errors, legend, means, panel, short_names, when
from hf_evol.study.density import density

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.figure import Figure

Drawing = tuple[str, "Figure", str, str]  # name, figure, alternative text, caption
Bar = tuple[str, int, list[tuple[str, int, str]]]  # whose, round, and its parts: name, count, colour

_LEVELS = ("#fde7a9", "#f6b65e", "#e07a3f", "#a8433f", "#5b2a5e")  # easy to hard, and light to dark
_REASONS = ("#56B4E9", "#E69F00", "#CC79A7", "#F0E442", "#009E73")
_NEUTRAL = "#d0d7de"
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names with dollar signs are names
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
} | dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)


def draw(results: Mapping[str, Any], rows: Dataset, folder: Path) -> list[dict[str, Any]]:
    """Draw what a study's data allows, as in the paper's "Analyses".

    The same data gives the same SVG bytes, on the same release of matplotlib.

    Args:
        results: what ``results.json`` holds.
        rows: one row per evolver, round and seed.
        folder: where the figures go; it is made if need be.

    Returns:
        For each figure ``name``, ``path_svg``, ``path_png``, ``alt`` and ``caption``. ``by_round_<measure>`` shows a
        measure's means; the others are ``levels``, ``mnd_density``, ``top1_density``, ``ifd_ic_ifd``, ``judgements``,
        ``yield`` and ``cost``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_extra("matplotlib", "plots", "A study with figures")
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    study, made = StudyData(results, rows), []
    drawings = chain(
        _levels(study),
        _by_round(study),
        _density(study, "mnd", "mnd_density", "distance to the nearest other row", "Minimum neighbour distances"),
        _density(study, "top1_probs", "top1_density", "probability of the most likely token", "Top-1 probabilities", 1),
        _ifd_ic_ifd(study),
        _judgements(study),
        _yield(study),
        _cost(study),
    )
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that the font lacks
        for name, figure, alt, caption in drawings:
            svg, png = folder / f"{name}.svg", folder / f"{name}.png"
            with rc_context({"svg.hashsalt": name}):
                figure.savefig(svg, facecolor=PAPER, metadata=no_metadata)
            figure.savefig(png, facecolor=PAPER, metadata={"Software": None})
            made.append({"name": name, "path_svg": svg, "path_png": png, "alt": alt, "caption": caption})
    return made


def _by_round(study: StudyData) -> Iterator[Drawing]:
    for measure in study.measures:
        series = {label: study.at(measure, label) for label in study.labels}
        series = {label: entries for label, entries in series.items() if any(entry["round"] for entry in entries)}
        if not series:
            continue
        figure, axes = panel(2.9)
        for place, (label, entries) in enumerate(series.items()):
            shift = 0.05 * (place - (len(series) - 1) / 2)  # so that intervals don't hide each other
            x = [entry["round"] + shift if entry["round"] else 0 for entry in entries]
            axes.plot(x, means(entries), **study.lines[label])
            bars = {"fmt": "none", "ecolor": study.colours[label], "capsize": 3, "elinewidth": 1.2}
            axes.errorbar(x, means(entries), errors(entries), **bars)
        if seeds := [entry for entry in entries if not entry["round"]]:  # the same for all, and above them
            axes.errorbar([0], means(seeds), errors(seeds), fmt="D", color=GREY, capsize=3, zorder=3, markersize=5)
        rounds = {entry["round"] for entries in series.values() for entry in entries}
        ticks = range(min(rounds), max(rounds) + 1)
        axes.set_xticks(ticks, map(when, ticks))
        title = study.title(measure)
        axes.set(xlim=(ticks[0] - 0.3, ticks[-1] + 0.3), ylabel=title)
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        legend(figure)
        said = "; ".join(
            f"{study.names[label]}: "
            + ", ".join(f"{when(entry['round'])} {number(entry['mean'])}" for entry in entries)
            for label, entries in series.items()
        )
        caption = f"Mean {title} in each round, with 95 % intervals."
        yield f"by_round_{measure}", figure, f"Mean {title}. {said}.", caption


def _levels(study: StudyData) -> Iterator[Drawing]:
    entries = study.results["levels"]
    unreadable = sum(entry["unreadable"] for entry in entries)
    caption = "Difficulty levels, as the judge sees them."
    caption += f" {unreadable} replies could not be read and are left out." if unreadable else ""
    bars = []
    for entry in entries:
        parts = [(*level, colour) for level, colour in zip(entry["counts"].items(), _LEVELS, strict=True)]
        bars.append((study.names[entry["evolver"]], entry["round"], parts))
    yield from _shares("levels", "difficulty levels", bars, "instructions", caption)


def _yield(study: StudyData) -> Iterator[Drawing]:
    entries = study.results["yields"]
    totals = sum((Counter(entry["dropped"]) for entry in entries), Counter())
    reasons = [reason for reason, _ in totals.most_common(len(_REASONS))]
    names = short_names([reason.replace("_", " ") for reason in reasons]).values()
    bars = []
    for entry in entries:
        parts = [("kept", entry["ok"], _NEUTRAL)]
        for reason, name, colour in zip(reasons, names, _REASONS, strict=False):
            parts.append((name, entry["dropped"].get(reason, 0), colour))
        if len(totals) > len(reasons):
            others = sum(count for reason, count in entry["dropped"].items() if reason not in reasons)
            parts.append(("other reasons", others, "#6e7781"))
        bars.append((study.names[entry["evolver"]], entry["round"], parts))
    caption = "What became of the rows: kept, or left out and why."
    yield from _shares("yield", "rows kept and left out", bars, "rows", caption)


def _judgements(study: StudyData) -> Iterator[Drawing]:
    bars = []
    for entry in study.results["judgements"]:
        a, b = entry["a"], entry["b"]
        parts = [
            (study.names[a], entry["win"], study.colours[a]),
            ("tie", entry["tie"], _NEUTRAL),
            (study.names[b], entry["lose"], study.colours[b]),
        ]
        bars.append((" – ".join(short_names([a, b], 14).values()), entry["round"], parts))
    caption = (
        "Whose rewriting the judge found better. Each pair was judged in both orders; where they disagree, it is a tie."
    )
    yield from _shares("judgements", "better rewritings", bars, "judged pairs", caption)


def _shares(name: str, title: str, bars: list[Bar], of: str, caption: str) -> Iterator[Drawing]:
    """Stacked horizontal bars, those of a round next to each other."""
    from matplotlib.colors import to_rgb

    bars = sorted((bar for bar in bars if any(count for _, count, _ in bar[2])), key=lambda bar: bar[1])
    if not bars:
        return
    rounds = sorted({round_ for _, round_, _ in bars})
    places = [place + 0.45 * rounds.index(round_) for place, (_, round_, _) in enumerate(bars)]
    titles = [f"{bar}, {when(round_)}" if round_ else bar for bar, round_, _ in bars]
    figure, axes = panel(1.2 + 0.3 * places[-1])
    said = []
    for y, bar, (_, _, parts) in zip(places, titles, bars, strict=True):
        left, total, shares = 0.0, sum(count for _, count, _ in parts), []
        for part, count, colour in parts:
            share = 100 * count / total
            shares.append(f"{part} {share:.0f} % ({count})")
            axes.barh(y, share, 0.82, left, label=part, color=colour, edgecolor=PAPER, linewidth=0.8)
            if share >= 6:
                ink = "#111111" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "#fdfdfd"
                axes.text(left + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=8.5, color=ink)
            left += share
        said.append(f"{bar}: {', '.join(shares)}")
    axes.set_yticks(places, titles)
    axes.set(xlim=(0, 100), ylim=(places[-1] + 0.6, -0.6), xlabel=f"share of {of} (%)")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    legend(figure)
    yield name, figure, f"Shares of {title}. {'; '.join(said)}.", caption


def _density(
    study: StudyData, column: str, name: str, title: str, caption: str, high: float = np.inf
) -> Iterator[Drawing]:
    round_, values = study.last_values(column)
    if not values:
        return
    figure, axes = panel(2.9)
    for label, numbers in values.items():
        x, y = density(numbers, high)
        axes.plot(x, y, **study.lines[label] | {"marker": None, "linewidth": 1.7})
        axes.fill_between(x, y, color=study.colours[label], alpha=0.08, linewidth=0)
    axes.margins(x=0.01)
    axes.set(ylim=(0, None), xlabel=title, ylabel="density")
    legend(figure)
    said = "; ".join(f"{study.names[label]}: {number(float(np.median(found)))}" for label, found in values.items())
    yield name, figure, f"Density of {title} in round {round_}. Medians: {said}.", f"{caption}, round {round_}."


def _ifd_ic_ifd(study: StudyData) -> Iterator[Drawing]:
    paths = {}
    for label in study.labels:
        x, y = ({entry["round"]: entry for entry in study.at(measure, label)} for measure in ("ifd", "ic_ifd"))
        rounds = sorted(x.keys() & y.keys())
        if any(rounds):
            paths[label] = [x[r] for r in rounds], [y[r] for r in rounds]
    if not paths:
        return
    figure, axes = panel(3.4)
    said = []
    for label, (xs, ys) in paths.items():
        bars = {"fmt": "none", "ecolor": study.colours[label], "alpha": 0.55, "capsize": 2}
        axes.errorbar(means(xs), means(ys), errors(ys), errors(xs), **bars)
        axes.plot(means(xs), means(ys), **study.lines[label])
        for x, y in zip(xs, ys, strict=True):
            at, (across, up) = x["round"], (x["mean"], y["mean"])
            axes.annotate(str(at or "seeds"), (across, up), (6, 5), textcoords="offset points", fontsize=8.5)
            said.append(f"{study.names[label]}, {when(at)}: IFD {number(across)}, IC-IFD {number(up)}")
    axes.set(xlabel=study.title("ifd"), ylabel=study.title("ic_ifd"))
    legend(figure)
    caption = "Mean IFD against mean IC-IFD, with 95 % intervals; numbers are rounds."
    yield "ifd_ic_ifd", figure, f"Mean IFD and IC-IFD. {'; '.join(said)}.", caption


def _cost(study: StudyData) -> Iterator[Drawing]:
    measures = ("difficulty_score", *study.measures)
    quality = next((name for name in measures if any(study.at(name, label) for label in study.labels)), "")
    paths: dict[str, dict[str, list[tuple[int, float, float]]]] = {}
    for unit, key in (("FLOPs", "flops"), ("tokens generated", "tokens")):
        found = {label: _spent(study, label, key, quality) for label in study.labels}
        if any(found.values()):
            paths[unit] = {label: path for label, path in found.items() if path}
    if not paths:
        return
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure, panels = panel(3.2, len(paths), squeeze=False, sharey=True)
    said, title = [], study.title(quality)
    for axes, (unit, found) in zip(panels[0], paths.items(), strict=True):
        axes.set_xscale("log")
        for label, path in found.items():
            _, spent, reached = zip(*path, strict=True)
            axes.plot(spent, reached, **study.lines[label])
            for r, x, y in path:
                axes.annotate(str(r), (x, y), (5, -11), textcoords="offset points", fontsize=8.5)
                said.append(f"{study.names[label]}, round {r}: {number(x)} {unit}, {number(y)}")
        every = [x for path in found.values() for _, x, _ in path]
        if max(every) < 20 * min(every):  # powers of ten alone would be too few
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.12)
        axes.set_xlabel(f"{unit} up to the round")
    panels[0][0].set_ylabel(f"mean {title}")
    legend(figure)
    caption = (
        f"What evolving had cost up to each round, against mean {title}; numbers are rounds. Further left and higher is "
        "better value."
    )
    yield "cost", figure, f"Cost against mean {title}. {'; '.join(said)}.", caption


def _spent(study: StudyData, label: str, key: str, quality: str) -> list[tuple[int, float, float]]:
    """(round, cost of it and the rounds before, mean quality), as far as each round's cost is known."""
    known, path, total = {entry["round"]: entry["mean"] for entry in study.at(quality, label)}, [], 0.0
    for entry in sorted((e for e in study.results["costs"] if e["evolver"] == label), key=lambda e: e["round"]):
        if not entry[key]:
            break
        total += entry[key]
        if entry["round"] in known:
            path.append((entry["round"], total, known[entry["round"]]))
    return path
