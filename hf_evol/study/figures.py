"""A study's figures, with matplotlib (extra ``plots``), as SVG for its report and PNG for a card."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_evol.errors import require_extra
from hf_evol.hub.card import number
from hf_evol.study.canvas import (
    GREY,
    INK,
    PAPER,
    SEEDS,
    Study,
    bar_name,
    bare,
    errors,
    legend,
    means,
    panel,
    shares,
    short_names,
    stack,
)
from hf_evol.study.density import density

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.figure import Figure

_LEVELS = ("#fde7a9", "#f6b65e", "#e07a3f", "#a8433f", "#5b2a5e")  # easy to hard, and light to dark
_REASONS = ("#56B4E9", "#E69F00", "#CC79A7", "#F0E442", "#009E73")
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names with dollar signs are names
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
} | dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK)


@dataclass(frozen=True)
class Drawing:
    """A figure and what is said about it."""

    name: str
    figure: Figure
    alt: str
    caption: str


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
    study, made = Study(results, rows), []
    with rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # names in scripts that the font lacks
        drawings = [drawing for drawer in _DRAWERS for drawing in drawer(study)]
        for drawing in drawings:
            paths = {f"path_{kind}": folder / f"{drawing.name}.{kind}" for kind in ("svg", "png")}
            with rc_context({"svg.hashsalt": drawing.name}):
                drawing.figure.savefig(paths["path_svg"], facecolor=PAPER, metadata={"Date": None, "Creator": None})
            drawing.figure.savefig(paths["path_png"], facecolor=PAPER, metadata={"Software": None})
            made.append({"name": drawing.name, "alt": drawing.alt, "caption": drawing.caption} | paths)
    return made


def _by_round(study: Study) -> Iterator[Drawing]:
    for measure in study.measures:
        series = {label: study.at(measure, label) for label in study.labels}
        series = {label: entries for label, entries in series.items() if any(r > 0 for r, _ in entries)}
        if not series:
            continue
        figure, axes = panel(2.9)
        handles, seen = [], set()
        for place, (label, entries) in enumerate(series.items()):
            shift = 0.05 * (place - (len(series) - 1) / 2)  # so that intervals don't hide each other
            x = [r + shift if r else 0 for r, _ in entries]
            (marker, line), colour = study.styles[label], study.colours[label]
            (handle,) = axes.plot(x, means(entries), marker=marker, linestyle=line, color=colour, markersize=5)
            evolved = [(position, entry) for position, entry in zip(x, entries, strict=True) if entry[0]]
            own = [entry for _, entry in evolved]
            places = [position for position, _ in evolved]
            axes.errorbar(places, means(own), errors(own), fmt="none", ecolor=colour, capsize=3, elinewidth=1.2)
            handles.append(handle)
            seen |= {r for r, _ in entries}
        if seeds := [entry for entry in study.at(measure, SEEDS) if not entry[0]]:
            axes.errorbar([0], means(seeds), errors(seeds), fmt="D", color=GREY, capsize=3, zorder=3, markersize=5)
        ticks = range(min(seen), max(seen) + 1)
        axes.set_xticks(ticks, ["seeds" if r == 0 else f"round {r}" for r in ticks])
        axes.set_xlim(ticks[0] - 0.3, ticks[-1] + 0.3)
        axes.set_ylabel(study.title(measure))
        axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
        legend(figure, handles, [study.names[label] for label in series])
        said = "; ".join(
            f"{study.names[label]}: "
            + ", ".join(f"{'seeds' if r == 0 else f'round {r}'} {number(entry['mean'])}" for r, entry in entries)
            for label, entries in series.items()
        )
        title = study.title(measure)
        caption = f"Mean {title} in each round, with 95 % intervals."
        yield Drawing(f"by_round_{measure}", figure, f"Mean {title}. {said}.", caption)


def _levels(study: Study) -> Iterator[Drawing]:
    entries = [entry for entry in study.results["levels"] if sum(entry["counts"].values())]
    if not entries:
        return
    names = list(entries[0]["counts"])
    bars = [(entry["evolver"], entry["round"], [entry["counts"].get(name, 0) for name in names]) for entry in entries]
    colours = [_LEVELS[round(i * (len(_LEVELS) - 1) / max(1, len(names) - 1))] for i in range(len(names))]
    figure = shares(study, bars, names, colours, "share of instructions (%)")
    unreadable = sum(entry["unreadable"] for entry in entries)
    caption = "Difficulty levels, as the judge sees them."
    caption += f" {unreadable} replies could not be read and are left out." if unreadable else ""
    said = "; ".join(
        f"{bar_name(study, label, round_)}: "
        + ", ".join(f"{name} {100 * count / sum(counts):.0f} %" for name, count in zip(names, counts, strict=True))
        for label, round_, counts in bars
    )
    yield Drawing("levels", figure, f"Shares of difficulty levels. {said}.", caption)


def _yield(study: Study) -> Iterator[Drawing]:
    entries = [entry for entry in study.results["yields"] if entry["ok"] + sum(entry["dropped"].values())]
    if not entries:
        return
    totals = sum((Counter(entry["dropped"]) for entry in entries), Counter())
    reasons = [reason for reason, count in totals.most_common(len(_REASONS)) if count]
    names, colours = ["kept", *short_names([reason.replace("_", " ") for reason in reasons]).values()], ["#d0d7de"]
    colours += _REASONS[: len(reasons)]
    others = totals.total() > sum(totals[reason] for reason in reasons)
    if others:
        names, colours = [*names, "other reasons"], [*colours, "#6e7781"]
    bars = []
    for entry in entries:
        counts = [entry["ok"], *(entry["dropped"].get(reason, 0) for reason in reasons)]
        counts += [sum(entry["dropped"].values()) - sum(counts[1:])] if others else []
        bars.append((entry["evolver"], entry["round"], counts))
    figure = shares(study, bars, names, colours, "share of rows (%)")
    said = "; ".join(
        f"{bar_name(study, entry['evolver'], entry['round'])}: {entry['ok']} of {entry['rows_in']}" for entry in entries
    )
    caption = "What became of the rows: kept, or left out and why."
    yield Drawing("yield", figure, f"Rows kept. {said}.", caption)


def _judgements(study: Study) -> Iterator[Drawing]:
    entries = [entry for entry in study.results["judgements"] if entry["win"] + entry["tie"] + entry["lose"]]
    pairs = list(dict.fromkeys((entry["a"], entry["b"]) for entry in entries))
    if not pairs:
        return
    heights = [sum((entry["a"], entry["b"]) == pair for entry in entries) for pair in pairs]
    figure, panels = panel(
        0.5 + sum(0.65 + 0.32 * height for height in heights), len(pairs), squeeze=False, height_ratios=heights
    )
    for axes, (a, b), height in zip(panels[:, 0], pairs, heights, strict=True):
        colours = study.colours[a], "#d0d7de", study.colours[b]
        own = sorted((e for e in entries if (e["a"], e["b"]) == (a, b)), key=lambda entry: entry["round"])
        for y, entry in enumerate(own):
            stack(axes, y, [entry[kind] for kind in ("win", "tie", "lose")], colours)
        axes.set_yticks(range(height), [f"round {entry['round']}" for entry in own])
        axes.set_ylim(height - 0.4, -0.6)
        axes.set_title(f"◀ {study.names[a]} better")
        axes.set_title(f"{study.names[b]} better ▶", loc="right")
        bare(axes, "share of judged pairs (%); grey: tie" if axes is panels[-1, 0] else "")
    said = "; ".join(
        f"{study.names[e['a']]} against {study.names[e['b']]}, round {e['round']}: "
        f"better {e['win']}, tie {e['tie']}, worse {e['lose']}"
        for e in entries
    )
    caption = (
        "Whose rewriting the judge found better. Each pair was judged in both orders; where they disagree, it is a tie."
    )
    yield Drawing("judgements", figure, f"Judgements. {said}.", caption)


def _density(column: str, name: str, title: str, caption: str, bounds: tuple[float, float | None]) -> Callable:
    def drawer(study: Study) -> Iterator[Drawing]:
        round_, values = study.last_values(column)
        if not values:
            return
        figure, axes = panel(2.9)
        handles = []
        for label, numbers in values.items():
            x, y = density(numbers, *bounds)
            (handle,) = axes.plot(x, y, color=study.colours[label], linestyle=study.styles[label][1], linewidth=1.7)
            axes.fill_between(x, y, color=study.colours[label], alpha=0.08, linewidth=0)
            handles.append(handle)
        axes.set_ylim(0)
        axes.margins(x=0.01)
        axes.set_xlabel(title)
        axes.set_ylabel("density")
        legend(figure, handles, [study.names[label] for label in values])
        said = "; ".join(f"{study.names[label]}: {number(float(np.median(found)))}" for label, found in values.items())
        yield Drawing(
            name, figure, f"Density of {title} in round {round_}. Medians: {said}.", f"{caption}, round {round_}."
        )

    return drawer


def _ifd_ic_ifd(study: Study) -> Iterator[Drawing]:
    figure = None
    said = []
    for label in study.labels:
        x, y = dict(study.at("ifd", label)), dict(study.at("ic_ifd", label))
        rounds = sorted(x.keys() & y.keys())
        if not any(rounds):
            continue
        if figure is None:
            figure, axes = panel(3.4)
            handles, names = [], []
        xs, ys = [(r, x[r]) for r in rounds], [(r, y[r]) for r in rounds]
        (marker, line), colour = study.styles[label], study.colours[label]
        axes.errorbar(means(xs), means(ys), errors(ys), errors(xs), fmt="none", ecolor=colour, alpha=0.55, capsize=2)
        (handle,) = axes.plot(means(xs), means(ys), marker=marker, linestyle=line, color=colour, markersize=5)
        for r, across, up in zip(rounds, means(xs), means(ys), strict=True):
            axes.annotate(str(r) if r else "seeds", (across, up), (6, 5), textcoords="offset points", fontsize=8.5)
            said.append(f"{study.names[label]}, round {r}: IFD {number(across)}, IC-IFD {number(up)}")
        handles.append(handle)
        names.append(study.names[label])
    if figure is None:
        return
    axes.set_xlabel(study.title("ifd"))
    axes.set_ylabel(study.title("ic_ifd"))
    legend(figure, handles, names)
    caption = "Mean IFD against mean IC-IFD, with 95 % intervals; numbers are rounds."
    yield Drawing("ifd_ic_ifd", figure, f"Mean IFD and IC-IFD. {'; '.join(said)}.", caption)


def _cost(study: Study) -> Iterator[Drawing]:
    quality = next((m for m in ("difficulty_score", *study.measures) if study.summaries.get(m)), None)
    if quality is None:
        return
    paths = {
        unit: {label: path for label in study.labels if (path := _spent(study, label, key, quality))}
        for unit, key in (("FLOPs", "flops"), ("tokens generated", "tokens"))
    }
    paths = {unit: found for unit, found in paths.items() if found}
    if not paths:
        return
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure, panels = panel(3.2, 1, len(paths), squeeze=False, sharey=True)
    handles: dict[str, Any] = {}
    for axes, (unit, found) in zip(panels[0], paths.items(), strict=True):
        for label, path in found.items():
            marker, line = study.styles[label]
            x, y = [spent for _, spent, _ in path], [mean for _, _, mean in path]
            (handles[label],) = axes.plot(x, y, marker=marker, linestyle=line, color=study.colours[label], markersize=5)
            for r, across, up in path:
                axes.annotate(str(r), (across, up), (5, -11), textcoords="offset points", fontsize=8.5)
        axes.set_xscale("log")
        every = [spent for path in found.values() for _, spent, _ in path]
        if max(every) < 20 * min(every):  # powers of ten alone would be too few
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.12)
        axes.set_xlabel(f"{unit} up to the round")
    panels[0][0].set_ylabel(f"mean {study.title(quality)}")
    legend(figure, list(handles.values()), [study.names[label] for label in handles])
    said = "; ".join(
        f"{study.names[label]}, round {r}: {number(spent)} {unit}, {number(mean)}"
        for unit, found in paths.items()
        for label, path in found.items()
        for r, spent, mean in path
    )
    title = study.title(quality)
    caption = f"What evolving had cost up to each round, against mean {title}; numbers are rounds. Further left and higher is better value."
    yield Drawing("cost", figure, f"Cost against mean {title}. {said}.", caption)


def _spent(study: Study, label: str, key: str, quality: str) -> list[tuple[int, float, float]]:
    """(round, cost of it and the rounds before, mean quality), as far as each round's cost is known."""
    known, path, total = dict(study.at(quality, label)), [], 0.0
    for entry in sorted((e for e in study.results["costs"] if e["evolver"] == label), key=lambda e: e["round"]):
        if not entry[key]:
            break
        total += entry[key]
        if entry["round"] in known:
            path.append((entry["round"], total, known[entry["round"]]["mean"]))
    return path


_DRAWERS: tuple[Callable[[Study], Iterator[Drawing]], ...] = (
    _levels,
    _by_round,
    _density("mnd", "mnd_density", "distance to the nearest other row", "Minimum neighbour distances", (0, None)),
    _density("top1_probs", "top1_density", "probability of the most likely token", "Top-1 probabilities", (0, 1)),
    _ifd_ic_ifd,
    _judgements,
    _yield,
    _cost,
)
