"""A study's report: one HTML file that needs nothing else, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from hf_evol.models.record import human_number
from hf_evol.progress import visible
from hf_evol.study.excerpt import excerpt
from hf_evol.study.figures import INK, PAPER, colours
from hf_evol.study.findings import cost_sentences, findings, shared_models, winner
from hf_evol.study.measures import ROLES

_HERE = Path(__file__).parent
# The figures that go with a measure, beside its means by round.
_OF_MEASURE = {"difficulty_score": "levels", "mnd": "mnd_density", "top1_mean": "top1_density"}


def write_report(results: Mapping[str, Any], rows: Dataset, figures: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a study's report, by what ``results.json`` holds, all rows, and what `hf_evol.study.figures.draw` returns.

    Everything is in the one file: figures, style, script, and as many rows as `excerpt` takes. A policy in its head
    forbids browsers to load anything else, or to run any script but its own. The same arguments give the same bytes.
    """
    script = (_HERE / "report.js").read_text("utf-8")
    shown, colour = excerpt(results, rows), colours(results)
    drawn = {figure["name"]: figure | {"svg": inline_svg(figure)} for figure in figures}
    _write_page(
        "report.html",
        path,
        r=results,
        findings=findings(results),
        role=results["role"],
        candidates=results[f"{results['role']}s"],
        quality=ROLES[results["role"]].quality,
        costs=cost_sentences(results) + shared_models(results),
        figures=drawn,
        of_measure=_OF_MEASURE,
        reasons=sorted({reason for entry in results["yields"] for reason in entry["dropped"]}),
        shown=shown,
        colours=colour,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=shown | {"colours": [colour[label] for label in shown["labels"]]},
    )


def write_steps(results: Mapping[str, Any], figure: Mapping[str, Any], path: Path) -> None:
    """Likewise of what `hf_evol.study.by_step.compare_steps` found, with the figure of `hf_evol.study.figures.draw_steps`."""
    changes = [
        change for step in results["steps"] for m in results["measures"] if (change := step[m["name"]]["change"])
    ]
    fewest = min((change["n"] for change in changes if change["n"]), default=0)
    _write_page("steps.html", path, r=results, fewest=fewest, drawn=figure | {"svg": inline_svg(figure)})


def _write_page(template: str, path: Path, **values: Any) -> None:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters.update(figure=figure, human=human_number, p=p_value, winner=winner, placed=placed)
    page = environment.from_string((_HERE / template).read_text("utf-8"))
    html = page.render(style=Markup((_HERE / "report.css").read_text("utf-8")), **values)
    path.write_bytes(html.encode("utf-8", "replace"))  # bytes: the script's hash is of these line ends


def inline_svg(figure: Mapping[str, Any]) -> Markup:
    """A figure's SVG as an element of an HTML page, in the page's colours of text and paper."""
    svg, prefix = visible(figure["path_svg"].read_text("utf-8")), f"figure-{figure['name']}-"
    svg = re.sub(' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    svg = re.sub('( id="|href="#|url\\(#)', rf"\1{prefix}", svg)
    svg = svg.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(visible(figure["alt"]))}"', 1))


def figure(value: float | None, signed: bool = False) -> str:
    """Four significant figures with a true minus, or a dash."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.4g}".replace("-", "−")


def p_value(value: float | None) -> str:
    """Three decimals, as far as they tell something, or a dash."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def placed(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each comparison with its places on a common axis, in percent of its width."""
    keys = ("low", "high", "difference")
    values = [0.0, *(c[key] for c in comparisons for key in keys if c[key] is not None)]
    span = (max(values) - min(values)) or 1.0

    def place(value: float | None) -> str | None:
        return None if value is None else f"{4 + 92 * (value - min(values)) / span:.2f}"

    return [dict(c) | {"at": {"zero": place(0.0)} | {key: place(c[key]) for key in keys}} for c in comparisons]
