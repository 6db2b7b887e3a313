"""What a study found, in words: which evolver is better, by how many of the measures, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hf_evol.hub.card import visible
from hf_evol.study.measures import PREFERRED, REWARD_OF_EVOLUTION
from hf_evol.study.statistics import NO_DIFFERENCE

# The measures that say which evolver is the better one; all others describe. More of each is better: harder, preferred,
# better rewarded, more worth training on (selection keeps the highest IC-IFD) and more diverse. IFD is left out, since
# instructions that are hard to read inflate it (paper, "IC-IFD"), and so are the length and the output space, which the
# paper gives as an explanation.
QUALITY = ("difficulty_score", PREFERRED, REWARD_OF_EVOLUTION, "reward", "ic_ifd", "mnd")

_FEW = 30  # pairs: what the intervals need (`hf_evol.study.statistics.compare`)


@dataclass(frozen=True)
class Finding:
    """Two evolvers in the last round in which they could be compared; each tuple holds measures' labels.

    Args:
        a, b: labels of the evolvers.
        round: of the comparisons; None where nothing could be compared.
        for_a, for_b: measures of quality by which a, or b, is better.
        undecided: measures of quality that show no difference.
        missing: measures of quality without pairs.
        not_compared: measures without pairs.
        earlier: what earlier rounds show by measures of quality, for example ``"reward in round 1 (small)"``.
        statements: the verdicts of all measures that show a difference.
        no_difference: all measures that show none.
        fewest: the smallest number of pairs of any comparison.
    """

    a: str
    b: str
    round: int | None
    for_a: tuple[str, ...] = ()
    for_b: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    not_compared: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    no_difference: tuple[str, ...] = ()
    fewest: int | None = None

    @property
    def few(self) -> bool:
        """Whether a comparison rests on fewer pairs than its interval needs."""
        return self.fewest is not None and self.fewest < _FEW


def findings(results: Mapping[str, Any]) -> list[Finding]:
    """A finding for each pair of evolvers that the study compares, in its order."""
    pairs = list(dict.fromkeys((c["a"], c["b"]) for c in results["comparisons"]))
    return [_finding(results, a, b) for a, b in pairs]


def _finding(results: Mapping[str, Any], a: str, b: str) -> Finding:
    labels = {measure["measure"]: visible(measure["label"]) for measure in results["measures"]}
    every = [c for c in results["comparisons"] if (c["a"], c["b"]) == (a, b)]
    last = max((c["round"] for c in every if c["n"]), default=None)
    own = {c["measure"]: c for c in every if c["round"] == last and c["n"] and c["measure"] in labels}
    empty = {c["measure"] for c in every if c["round"] == last and not c["n"]}
    ahead = {name: winner(c) for name, c in own.items()}

    def named(chosen: Any) -> tuple[str, ...]:
        return tuple(labels[name] for name in labels if chosen(name))

    return Finding(
        a=visible(a),
        b=visible(b),
        round=last,
        for_a=named(lambda name: name in QUALITY and name in own and ahead[name] == a),
        for_b=named(lambda name: name in QUALITY and name in own and ahead[name] == b),
        undecided=named(lambda name: name in QUALITY and name in own and ahead[name] is None),
        missing=named(lambda name: name in QUALITY and name in empty),
        not_compared=named(lambda name: name not in own),
        earlier=tuple(
            f"{labels[c['measure']]} in round {c['round']} ({visible(higher)})"
            for c in every
            if c["measure"] in QUALITY and c["measure"] in labels and c["round"] != last and (higher := winner(c))
        ),
        statements=tuple(visible(own[name]["verdict"]) for name in labels if ahead.get(name) is not None),
        no_difference=named(lambda name: name in own and ahead[name] is None),
        fewest=min((c["n"] for c in own.values()), default=None),
    )


def winner(comparison: Mapping[str, Any]) -> str | None:
    """The evolver with the higher mean, where the verdict says that there is a difference."""
    if comparison["verdict"] in (None, NO_DIFFERENCE):
        return None
    return comparison["a"] if comparison["difference"] > 0 else comparison["b"]


def sentences(finding: Finding) -> str:
    """Who is the better evolver, in a few sentences."""
    a, b, n = finding.a, finding.b, len(finding.for_a + finding.for_b + finding.undecided)
    if finding.round is None:
        return f"{a} and {b} could not be compared: they have no rows in common."
    where = f"In round {finding.round}, "
    earlier = f" Earlier rounds show a difference by {listed(finding.earlier)}." if finding.earlier else ""
    missing = f" By {listed(finding.missing)}, no rows could be compared." if finding.missing else ""
    if n == 0:
        text = f"{where}{a} and {b} were compared by no measure of quality; the differences below only describe them."
        return text + missing + earlier
    of = f"of {n} measure{'s' if n > 1 else ''} of quality"
    if finding.for_a and finding.for_b:
        text = f"{where}neither is the better evolver throughout: by {len(finding.for_a)} {of} it is {a} "
        text += f"({listed(finding.for_a)}), by {len(finding.for_b)} {b} ({listed(finding.for_b)})."
    elif finding.for_a or finding.for_b:
        better, other, by = (a, b, finding.for_a) if finding.for_a else (b, a, finding.for_b)
        text = f"{where}{better} is the better evolver by {len(by)} {of} ({listed(by)}), {other} by none."
    else:
        return (
            f"{where}no difference is shown between {a} and {b} by any {of} ({listed(finding.undecided)}). That doesn't "
            "show them to be equal: the intervals say how large a difference may still be." + missing + earlier
        )
    text += f" By {listed(finding.undecided)}, no difference is shown." if finding.undecided else ""
    return text + missing


def cost_sentences(costs: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """What the evolvers of each pair spent, where it is known for all of their rounds."""
    said = []
    for pair in combinations(labels, 2):
        for key, unit in (("flops", "FLOPs"), ("tokens", "generated tokens")):
            spent = {label: [entry[key] for entry in costs if entry["evolver"] == label] for label in pair}
            if not all(values and all(values) for values in spent.values()):
                continue
            (less, least), (more, most) = sorted(((k, sum(v)) for k, v in spent.items()), key=lambda item: item[1])
            said.append(f"{visible(less)} spent {100 * least / most:.3g} % of the {unit} of {visible(more)}.")
            break
    return said


def glance(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each pair of evolvers a table: a row for each measure, and in each round who is higher, if anyone."""
    tables = []
    for a, b in dict.fromkeys((c["a"], c["b"]) for c in results["comparisons"]):
        own = {(c["measure"], c["round"]): c for c in results["comparisons"] if (c["a"], c["b"]) == (a, b)}
        rounds = sorted({round_ for _, round_ in own})
        rows = [
            {
                "label": measure["label"],
                "quality": measure["measure"] in QUALITY,
                "cells": [_glanced(own.get((measure["measure"], round_))) for round_ in rounds],
            }
            for measure in results["measures"]
            if any(name == measure["measure"] for name, _ in own)
        ]
        tables.append({"a": a, "b": b, "rounds": rounds, "rows": rows})
    return tables


def _glanced(comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    if comparison is None or not comparison["n"]:
        return {"kind": "missing"}
    if (higher := winner(comparison)) is None:
        return {"kind": "none"}
    return {"kind": "higher", "label": higher, "by": abs(comparison["difference"])}


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
