"""A study's report: one HTML file that needs nothing else, and asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hf_evol.hub.card import visible
from hf_evol.hub.figures import COLOURS
from hf_evol.hub.provenance import human_number
from hf_evol.study.canvas import INK, PAPER, SEEDS, short_names
from hf_evol.study.excerpt import excerpt
from hf_evol.study.findings import cost_sentences, findings, glance, sentences, winner

if TYPE_CHECKING:
    from datasets import Dataset

# Where each figure goes, beside the means by round of each measure; what has no place comes last.
_OF_MEASURE = {
    "levels": "difficulty_score",
    "mnd_density": "mnd",
    "top1_density": "top1_mean",
    "ifd_ic_ifd": "ic_ifd",
}
_OF_SECTION = ("yield", "cost", "judgements")

# Within a script element these could end it, or a string; JSON allows writing them as escapes.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write_report(results: Mapping[str, Any], rows: Dataset, figures: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a study's report.

    Everything is in the one file: figures, style, script, and as many rows as `excerpt` takes. A policy in its head
    forbids browsers to load anything else, or to run any script but its own. The same arguments give the same bytes.

    Args:
        results: what ``results.json`` holds.
        rows: one row per evolver, round and seed.
        figures: what `hf_evol.study.figures.draw` returns; may be empty.
        path: the file to write.
    """
    here = Path(__file__).parent
    style, script, template = ((here / f"report.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    drawn = {figure["name"]: figure | {"svg": inline_svg(figure)} for figure in figures}
    labels = [evolver["label"] for evolver in results["evolvers"]]
    shown = excerpt(results, rows)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": figure, "si": si, "p": p_value, "visible": visible, "percent": percent}
    html = environment.from_string(template).render(
        r=results,
        findings=[(finding, sentences(finding)) for finding in findings(results)],
        costs=cost_sentences(results["costs"], labels),
        glance=glance(results),
        measures=[_measure(measure, results, drawn) for measure in results["measures"]],
        figures={name: drawn.get(name) for name in _OF_SECTION},
        others=_others(results, drawn),
        colours={label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)},
        reasons=sorted({reason for entry in results["yields"] for reason in entry["dropped"]}),
        n_shown=len(shown["pairs"]),
        n_pairs=shown["total"],
        human=human_number,
        names=short_names([*labels, SEEDS]),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=embedded_json(shown | {"colours": [COLOURS[place % len(COLOURS)] for place in range(len(labels))]}),
    )
    path.write_bytes(html.encode("utf-8", "replace"))  # bytes: the script's hash is of these line ends


def embedded_json(data: Any) -> Markup:
    """JSON that can stand in a script element, whatever its strings hold."""
    return Markup(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES))


def inline_svg(figure: Mapping[str, Any]) -> Markup:
    """A figure's SVG as an element of an HTML page, in the page's colours of text and paper."""
    root = ElementTree.parse(figure["path_svg"]).getroot()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    colours = {INK: "currentColor", PAPER: "var(--paper)"}
    prefix = f"figure-{figure['name']}-"
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        for name, value in attributes.items():
            if name == "id":
                attributes[name] = prefix + value
            elif name == "href":
                attributes[name] = "#" + prefix + value.removeprefix("#")
            elif name in ("style", "clip-path", "fill", "stroke"):
                value = value.replace("url(#", f"url(#{prefix}")
                attributes[name] = re.sub("|".join(colours), lambda match: colours[match[0]], value)
        element.attrib.clear()
        element.attrib.update(attributes)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": figure["alt"]}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def figure(value: float | None, signed: bool = False) -> str:
    """Four significant figures with a true minus, or a dash."""
    return "–" if value is None else f"{value:{'+' if signed else ''}.4g}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """A share, or a dash where there is nothing to share."""
    return f"{100 * part / whole:.3g} %" if whole else "–"


def p_value(value: float | None) -> str:
    """Three decimals, as far as they tell something."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def si(value: float | None) -> str:
    """Three figures and a prefix of powers of a thousand, or a dash."""
    if value is None:
        return "–"
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def _measure(measure: Mapping[str, Any], results: Mapping[str, Any], drawn: Mapping[str, Any]) -> dict[str, Any]:
    name = measure["measure"]
    wanted = [f"by_round_{name}", *(place for place, of in _OF_MEASURE.items() if of == name)]
    comparisons = sorted((c for c in results["comparisons"] if c["measure"] == name), key=lambda c: c["round"])
    return dict(measure) | {
        "figures": [drawn[place] for place in wanted if place in drawn],
        "forest": _forest(comparisons),
        "summaries": [entry for entry in results["summaries"] if entry["measure"] == name],
    }


def _forest(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each comparison with its places on a common axis, in percent of its width."""
    values = [0.0, *(c[key] for c in comparisons for key in ("low", "high", "difference") if c[key] is not None)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def place(value: float | None) -> str | None:
        return None if value is None else f"{4 + 92 * (value - low) / span:.2f}"

    return [
        dict(c)
        | {
            "higher": winner(c),
            "at": {"zero": place(0.0)} | {key: place(c[key]) for key in ("low", "high", "difference")},
        }
        for c in comparisons
    ]


def _others(results: Mapping[str, Any], drawn: Mapping[str, Any]) -> list[Any]:
    measures = {measure["measure"] for measure in results["measures"]}
    placed = {f"by_round_{measure}" for measure in measures} | set(_OF_SECTION)
    placed |= {name for name, measure in _OF_MEASURE.items() if measure in measures}
    return [figure for name, figure in drawn.items() if name not in placed]
