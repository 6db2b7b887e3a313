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


@dataclass(frozen=True)
class Finding:
    """What was found of two evolvers.

    Args:
        a, b: their labels.
        text: who is the better evolver in the last round in which they could be compared, in a few sentences.
        fewest: the smallest number of pairs of any comparison that has some; None where none has.
        rounds: those of the study.
        rows: of each measure, its entry in ``results.json`` and its comparison in each of the rounds.
    """

    a: str
    b: str
    text: str
    fewest: int | None
    rounds: list[int]
    rows: list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]


def findings(results: Mapping[str, Any]) -> list[Finding]:
    """A finding for each pair of evolvers that the study compares, in its order."""
    return [_finding(results, *pair) for pair in dict.fromkeys((c["a"], c["b"]) for c in results["comparisons"])]


def _finding(results: Mapping[str, Any], a: str, b: str) -> Finding:
    own = {(c["measure"], c["round"]): c for c in results["comparisons"] if (c["a"], c["b"]) == (a, b)}
    rounds = sorted({round_ for _, round_ in own})
    rows = [(entry, [own.get((entry["measure"], round_)) for round_ in rounds]) for entry in results["measures"]]
    last = max((round_ for (_, round_), c in own.items() if c["n"]), default=None)
    fewest = min((c["n"] for c in own.values() if c["n"]), default=None)
    better: dict[str | None, list[str]] = {a: [], b: [], None: []}
    missing, earlier = [], []
    labels = {entry["measure"]: visible(entry["label"]) for entry in results["measures"] if entry["measure"] in QUALITY}
    for (measure, round_), c in own.items():
        if measure not in labels:
            continue
        if round_ != last:
            if higher := winner(c):
                earlier.append(f"{labels[measure]} in round {round_} ({visible(higher)})")
        elif c["n"]:
            better[winner(c)].append(labels[measure])
        else:
            missing.append(labels[measure])
    text = _sentences(visible(a), visible(b), last, *better.values(), missing, earlier)
    return Finding(a, b, text, fewest, rounds, rows)


def winner(comparison: Mapping[str, Any]) -> str | None:
    """The evolver with the higher mean, where the verdict says that there is a difference."""
    if comparison["verdict"] in (None, NO_DIFFERENCE):
        return None
    return comparison["a"] if comparison["difference"] > 0 else comparison["b"]


def _sentences(
    a: str, b: str, last: int | None, for_a: list[str], for_b: list[str], undecided: list[str], missing: list[str],
    earlier: list[str],
) -> str:  # fmt: skip
    """Who is better by which measures of quality in the last round; and those without pairs, and what rounds before show."""
    if last is None:
        return f"{a} and {b} could not be compared: they have no rows in common."
    n = len(for_a + for_b + undecided)
    of = f"of {n} measure{'s' if n > 1 else ''} of quality"
    said = []
    if for_a and for_b:
        said.append(
            f"neither is the better evolver throughout: by {len(for_a)} {of} it is {a} ({listed(for_a)}), "
            f"by {len(for_b)} {b} ({listed(for_b)})."
        )
    elif for_a or for_b:
        better, other, by = (a, b, for_a) if for_a else (b, a, for_b)
        said.append(f"{better} is the better evolver by {len(by)} {of} ({listed(by)}), {other} by none.")
    elif undecided:
        said.append(
            f"no difference is shown between {a} and {b} by any {of} ({listed(undecided)}). That doesn't show them to be "
            "equal: the intervals say how large a difference may still be."
        )
    else:
        said.append(f"{a} and {b} were compared by no measure of quality; the differences below only describe them.")
    if undecided and (for_a or for_b):
        said.append(f"By {listed(undecided)}, no difference is shown.")
    if missing:
        said.append(f"By {listed(missing)}, no rows could be compared.")
    if earlier and not (for_a or for_b):
        said.append(f"Earlier rounds show a difference by {listed(earlier)}.")
    return f"In round {last}, {' '.join(said)}"


def cost_sentences(costs: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[str]:
    """What the evolvers of each pair spent, where it is known for all of their rounds."""
    said = []
    for pair in combinations(labels, 2):
        for key, unit in (("flops", "FLOPs"), ("tokens", "generated tokens")):
            spent = {label: [entry[key] for entry in costs if entry["evolver"] == label] for label in pair}
            if all(values and all(values) for values in spent.values()):
                less, more = sorted(pair, key=lambda label: sum(spent[label]))
                share = 100 * sum(spent[less]) / sum(spent[more])
                said.append(f"{visible(less)} spent {share:.3g} % of the {unit} of {visible(more)}.")
                break
    return said


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
