"""A study's data as its figures and its report need it, and what the figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_evol.hub.card import visible
from hf_evol.hub.figures import COLOURS
from hf_evol.study.results import SEEDS

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.figure import Figure

INK, PAPER = "#1f2328", "#ffffff"  # the report puts its own in their place

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


class StudyData:
    """What ``results.json`` and the rows hold, with a short name, a colour and a style of line for each evolver."""

    def __init__(self, results: Mapping[str, Any], rows: Dataset) -> None:
        self.results, self.rows = results, rows
        self.labels: list[str] = [evolver["label"] for evolver in results["evolvers"]]
        names = short_names([*self.labels, SEEDS])
        # matplotlib leaves names that begin with an underscore out of its legends
        self.names = {label: f" {name}" if name.startswith("_") else name for label, name in names.items()}
        self.colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(self.labels)}
        self.colours[SEEDS] = GREY
        self.lines = {}
        for place, label in enumerate(self.labels):
            marker, line = _STYLES[place % len(_STYLES)]
            style = {"color": self.colours[label], "marker": marker, "linestyle": line, "markersize": 5}
            self.lines[label] = style | {"label": self.names[label]}
        self.measures = {entry["measure"]: entry for entry in results["measures"]}

    def title(self, measure: str) -> str:
        entry = self.measures[measure]
        return _line(entry["label"]) + (f" ({_line(entry['unit'])})" if entry["unit"] else "")

    def at(self, measure: str, label: str) -> list[dict[str, Any]]:
        """The summaries of an evolver by round, with the seeds first where they have one; none without a mean."""
        found = [e for e in self.results["summaries"] if e["measure"] == measure and e["evolver"] in (label, SEEDS)]
        return sorted((e for e in found if e["mean"] is not None), key=lambda entry: entry["round"])

    def last_values(self, column: str) -> tuple[int, dict[str, np.ndarray]]:
        """The last round in which a column holds numbers, and those of each evolver that has two or more there."""
        if column not in self.rows.column_names:
            return 0, {}
        frame = self.rows.select_columns(["label", "round", column]).to_pandas().explode(column).dropna()
        values = {key: of[column].to_numpy(float) for key, of in frame.groupby(["round", "label"]) if len(of) > 1}
        last = max((round_ for round_, _ in values), default=0)
        return last, {label: values[last, label] for label in self.labels if (last, label) in values}


def panel(height: float, columns: int = 1, **kwargs: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(7, height), dpi=150, layout="constrained")
    return figure, figure.subplots(1, columns, **kwargs)


def legend(figure: Figure) -> None:
    """What has a label, once, above the figure."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        found |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    longest, together = max(map(len, found)), sum(len(name) + 6 for name in found)
    columns = len(found) if together < 96 else max(1, min(len(found), 84 // (longest + 5)))
    place = {"loc": "outside upper left", "ncols": columns}
    figure.legend(found.values(), found.keys(), columnspacing=1.4, handlelength=2.2, **place)


def means(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    return np.array([entry["mean"] for entry in entries], dtype=float)


def errors(entries: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """How far each interval reaches below and above its mean."""
    low, high = np.transpose([entry["ci95"] or (entry["mean"], entry["mean"]) for entry in entries])
    return np.clip([means(entries) - low, high - means(entries)], 0, None)


def when(round_: int) -> str:
    return f"round {round_}" if round_ else "seeds"
