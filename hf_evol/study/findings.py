"""What a study found, in words: which model is better, by how many of the measures, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from hf_evol.study.measures import ROLES
from hf_evol.study.statistics import NO_DIFFERENCE


def findings(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was found of each pair ``a`` and ``b``: ``text`` (who is the better one in the last round in which they
    could be compared), ``fewest`` (the smallest number of pairs of any comparison that has some), and, for a table,
    ``rounds`` and ``rows`` (each measure, and its comparison in each of the rounds).
    """
    found = []
    for a, b in dict.fromkeys((c["a"], c["b"]) for c in results["comparisons"]):
        own = {(c["measure"], c["round"]): c for c in results["comparisons"] if (c["a"], c["b"]) == (a, b)}
        rounds = sorted({round_ for _, round_ in own})
        rows = [(entry, [own.get((entry["measure"], round_)) for round_ in rounds]) for entry in results["measures"]]
        fewest = min((c["n"] for c in own.values() if c["n"]), default=None)
        text = _text(results, a, b, own)
        found.append({"a": a, "b": b, "text": text, "fewest": fewest, "rounds": rounds, "rows": rows})
    return found


def winner(comparison: Mapping[str, Any]) -> str | None:
    """The label with the higher mean, where the verdict says that there is a difference."""
    if comparison["verdict"] in (None, NO_DIFFERENCE):
        return None
    return comparison["a"] if comparison["difference"] > 0 else comparison["b"]


def _text(results: Mapping[str, Any], a: str, b: str, own: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    last = max((round_ for (_, round_), c in own.items() if c["n"]), default=None)
    if last is None:
        return f"{a} and {b} could not be compared: they have no rows in common."
    quality = ROLES[results["role"]].quality
    labels = {entry["measure"]: entry["label"] for entry in results["measures"] if entry["measure"] in quality}
    by: dict[str | None, list[str]] = {a: [], b: [], None: []}
    missing = []
    for (measure, round_), c in own.items():
        if measure in labels and round_ == last:
            (by[winner(c)] if c["n"] else missing).append(labels[measure])
    n, undecided = sum(map(len, by.values())), by.pop(None)
    of = f"of {n} measure{'s' if n > 1 else ''} of quality"
    said = [f"In round {last},"]
    if not last:
        base = next(model["name"] for model in results["models"] if model["role"] == "base")
        said = [f"For {base.rpartition('/')[2]},"]
    if any(by.values()):
        (better, most), (other, others) = sorted(by.items(), key=lambda item: -len(item[1]))
        fewer = f"{len(others)} ({listed(others)})" if others else "none"
        is_better = "is better" if last else "is the better responder"
        said.append(f"{better} {is_better} by {len(most)} {of} ({listed(most)}), {other} by {fewer}.")
        if undecided:
            said.append(f"By {listed(undecided)}, no difference is shown.")
    elif undecided:
        said.append(
            f"no difference is shown between {a} and {b} by any {of} ({listed(undecided)}). That doesn't show them to be "
            "equal: the intervals say how large a difference may still be."
        )
    else:
        said.append(f"{a} and {b} were compared by no measure of quality; the differences below only describe them.")
    if missing:
        said.append(f"By {listed(missing)}, no rows could be compared.")
    return " ".join(said)


def cost_sentences(results: Mapping[str, Any]) -> list[str]:
    """What those of each pair spent, where it is known for all of their rounds."""
    said, role = [], results["role"]
    for pair in combinations([model["label"] for model in results[f"{role}s"]], 2):
        for key, unit in (("flops", "FLOPs"), ("tokens", "generated tokens")):
            spent = {label: [entry[key] for entry in results["costs"] if entry[role] == label] for label in pair}
            if all(values and all(values) for values in spent.values()):
                less, more = sorted(pair, key=lambda label: sum(spent[label]))
                share = 100 * sum(spent[less]) / sum(spent[more])
                said.append(f"{less} spent {share:.3g} % of the {unit} of {more}.")
                break
    return said


def shared_models(results: Mapping[str, Any]) -> list[str]:
    """Where a model that is compared has another part as well, such as the judge's."""
    said, role = [], results["role"]
    for model in results["models"]:
        if labels := [of["label"] for of in results[f"{role}s"] if of["name"] == model["name"]]:
            said.append(
                f"The {model['role']} is the model of the {role} {listed(labels)}, and may favour its own texts."
            )
    return said


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
