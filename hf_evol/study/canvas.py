"""A study's data as its figures need it, and the parts that they share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_evol.hub.card import visible
from hf_evol.hub.figures import COLOURS

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER = "#1f2328", "#ffffff"  # the report puts its own in their place
SEEDS = "seeds"

GREY = "#8b949e"
_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", (0, (5, 1, 1, 1, 1, 1))), ("P", (0, (1, 1))))


def short_names(labels: Sequence[str], width: int = 26) -> dict[str, str]:
    """Each label on one line, without its middle where it is long; different labels stay different."""
    names: dict[str, str] = {}
    for label in labels:
        line = _line(label) or "?"
        if len(line) > width:
            line = f"{line[: width // 2 - 1]}…{line[-(width - width // 2) :]}"
        while line in names.values():
            line += "′"
        names[label] = line
    return names


def _line(text: str) -> str:
    """One line, without what XML can't hold."""
    return " ".join(visible(text).replace("\ufffe", "").replace("\uffff", "").split())


class Study:
    """A study's data as the figures need it."""

    def __init__(self, results: Mapping[str, Any], rows: Dataset) -> None:
        self.results, self.rows = results, rows
        self.labels: list[str] = [evolver["label"] for evolver in results["evolvers"]]
        self.names = short_names([*self.labels, SEEDS])
        places = range(len(self.labels))
        self.colours = {self.labels[i]: COLOURS[i % len(COLOURS)] for i in places} | {SEEDS: GREY}
        self.styles = {self.labels[i]: _STYLES[i % len(_STYLES)] for i in places}
        self.measures = {entry["measure"]: entry for entry in results["measures"]}
        self.summaries: dict[str, dict[tuple[str, int], Any]] = defaultdict(dict)
        for entry in results["summaries"]:
            if entry["mean"] is not None:
                self.summaries[entry["measure"]][entry["evolver"], entry["round"]] = entry

    def title(self, measure: str) -> str:
        entry = self.measures.get(measure, {"label": measure, "unit": None})
        return _line(entry["label"]) + (f" ({_line(entry['unit'])})" if entry["unit"] else "")

    def at(self, measure: str, label: str) -> list[tuple[int, Any]]:
        """(round, summary) of an evolver, in order, with the seeds first where they have one."""
        found = self.summaries[measure].items()
        own = [(r, entry) for (name, r), entry in found if (name == label and r > 0) or (name == SEEDS and r == 0)]
        return sorted(own, key=lambda item: item[0])

    def last_values(self, column: str) -> tuple[int, dict[str, np.ndarray]]:
        """The last round in which a column holds a number, and each evolver's numbers there."""
        if column not in self.rows.column_names:
            return 0, {}
        kept: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
        columns = self.rows.select_columns(["label", "round", column])
        for batch in columns.iter(batch_size=10_000):
            for label, round_, value in zip(batch["label"], batch["round"], batch[column], strict=True):
                if value is not None:
                    kept[round_, label].append(np.atleast_1d(np.array(value, dtype=np.float32)))
        values = {key: np.concatenate(arrays) for key, arrays in kept.items()}
        values = {key: array[np.isfinite(array)] for key, array in values.items()}
        values = {key: array for key, array in values.items() if len(array) > 1}
        last = max((r for r, _ in values), default=0)
        return last, {label: values[last, label] for label in self.labels if (last, label) in values}


def panel(height: float, rows: int = 1, columns: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(7, height), dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, **kwargs)


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    longest, together = max(map(len, names)), sum(len(name) + 6 for name in names)
    columns = len(names) if together < 96 else max(1, min(len(names), 84 // (longest + 5)))
    # matplotlib leaves out labels that begin with an underscore.
    labels = [f" {name}" if name.startswith("_") else name for name in names]
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.4, handlelength=2.2)


def means(entries: Sequence[tuple[int, Any]]) -> np.ndarray:
    return np.array([entry["mean"] for _, entry in entries], dtype=float)


def errors(entries: Sequence[tuple[int, Any]]) -> np.ndarray:
    """How far each interval reaches below and above its mean."""
    bounds = [entry["ci95"] or (entry["mean"], entry["mean"]) for _, entry in entries]
    centres = means(entries)
    return np.clip([centres - [low for low, _ in bounds], [high for _, high in bounds] - centres], 0, None)


def bar_name(study: Study, label: str, round_: int) -> str:
    return "seeds" if round_ == 0 else f"{study.names.get(label, label)}, round {round_}"


def shares(
    study: Study, bars: list[tuple[str, int, list[int]]], names: Sequence[str], colours: Sequence[str], axis: str
) -> Figure:
    """Stacked horizontal bars, the evolvers of a round next to each other."""
    order = {label: place for place, label in enumerate(study.labels)}
    bars = sorted((bar for bar in bars if sum(bar[2])), key=lambda bar: (bar[1], order.get(bar[0], -1)))
    y, places = 0.0, []
    for place, (_, round_, _) in enumerate(bars):
        y += 1.0 if place == 0 or bars[place - 1][1] == round_ else 1.45
        places.append(y)
    figure, axes = panel(0.9 + 0.3 * places[-1])
    for y, (_, _, counts) in zip(places, bars, strict=True):
        stack(axes, y, counts, colours)
    axes.set_yticks(places, [bar_name(study, label, round_) for label, round_, _ in bars])
    bare(axes, axis)
    axes.set_ylim(places[-1] + 0.6, places[0] - 0.6)
    from matplotlib.patches import Patch

    legend(figure, [Patch(facecolor=colour) for colour in colours], names)
    return figure


def bare(axes: Axes, label: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_xlabel(label)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def stack(axes: Axes, y: float, counts: Sequence[int], colours: Sequence[str]) -> None:
    from matplotlib.colors import to_rgb

    left, total = 0.0, sum(counts)
    for count, colour in zip(counts, colours, strict=True):
        share = 100 * count / total
        axes.barh(y, share, 0.82, left, color=colour, edgecolor=PAPER, linewidth=0.8)
        if share >= 6:
            light = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5
            axes.text(
                left + share / 2, y, f"{share:.0f}", ha="center", va="center", fontsize=8.5,
                color="#111111" if light else "#fdfdfd",
            )  # fmt: skip
        left += share
