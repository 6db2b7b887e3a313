"""Verification functions and test cases of a constraint: cross-validated.

The rule is AutoIF's (arXiv:2406.13542), with the paper's thresholds (arXiv:2412.11231, Scenario 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_evol.autoif.completions import parse_completion
from hf_evol.autoif.sandbox import Result, Sandbox
from hf_evol.errors import ConfigError

_TIMEOUTS = 2  # a function that runs out of time on its first inputs is not called on the others


@dataclass(frozen=True)
class Thresholds:
    """What a constraint must reach to be kept.

    Args:
        accuracy: least share of the kept cases on which a function is right.
        functions: least number of functions that reach it.
        cases: least number of different cases before any is left out.
    """

    accuracy: float = 0.8
    functions: int = 1
    cases: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1 or self.functions < 1 or self.cases < 1:
            raise ConfigError(f"accuracy must be from 0 to 1, functions and cases 1 or more; got {self!r}.")


PRESETS = {"paper": Thresholds(), "autoif": Thresholds(functions=3, cases=10)}


def cross_validate(
    instruction: str,
    completions: Sequence[str],
    *,
    thresholds: Thresholds | str = "paper",
    sandbox: Sandbox | None = None,
) -> dict[str, Any]:
    """Keep the functions and cases that agree with each other.

    Equal functions and equal cases count once. A case is kept if at least one function gives its output; a function, if
    it is right on enough of the kept cases; the constraint, if enough functions are left. Functions run in the sandbox
    only.

    Args:
        instruction: the constraint, carried through; a worked example of the prompt for another one is no function of it.
        completions: texts with a function and cases each, in the forms that `parse_completion` reads.
        thresholds: a `Thresholds`, or ``"paper"`` or ``"autoif"``.
        sandbox: one to use for many constraints; by default a new one.

    Returns:
        ``instruction``; ``status`` (``ok``, ``too_few_cases`` or ``too_few_functions``); ``functions`` and ``cases`` that
        are kept; ``accuracies`` of the kept functions; ``n_functions`` and ``n_cases`` before, without repetitions; and
        ``reasons``: how many completions, functions and cases were lost to what.
    """
    thresholds = resolve_thresholds(thresholds)
    reasons: Counter[str] = Counter()
    sources, cases = _collect(instruction, completions, reasons)
    if sandbox is None:
        with Sandbox() as own:
            right = _right(own, sources, cases, reasons)
    else:
        right = _right(sandbox, sources, cases, reasons)
    kept_cases = [place for place in range(len(cases)) if any(row[place] for row in right.values())]
    reasons["case_without_agreement"] += len(cases) - len(kept_cases)
    accuracies = {
        source: sum(row[place] for place in kept_cases) / len(kept_cases) if kept_cases else 0.0
        for source, row in right.items()
    }
    kept = [source for source, accuracy in accuracies.items() if kept_cases and accuracy >= thresholds.accuracy]
    reasons["function_inaccurate"] += len(right) - len(kept)
    status = "ok"
    if len(cases) < thresholds.cases:
        status = "too_few_cases"
    elif len(kept) < thresholds.functions:
        status = "too_few_functions"
    return {
        "instruction": instruction,
        "status": status,
        "functions": kept,
        "accuracies": [accuracies[source] for source in kept],
        "cases": [cases[place] for place in kept_cases],
        "n_functions": len(right),
        "n_cases": len(cases),
        "reasons": {reason: count for reason, count in reasons.items() if count},
    }


def _collect(
    instruction: str, completions: Sequence[str], reasons: Counter[str]
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Sources, with how often each came, and different cases."""
    sources: Counter[str] = Counter()
    cases: dict[tuple[str, bool], dict[str, Any]] = {}
    for completion in completions:
        parsed = parse_completion(completion or "", instruction)
        if isinstance(parsed, str):
            reasons[parsed] += 1
            continue
        source, found = parsed
        sources[source] += 1
        for case in found:
            reasons["case_repeated"] += (case["input"], case["output"]) in cases
            cases.setdefault((case["input"], case["output"]), case)
    return sources, list(cases.values())


def _right(
    sandbox: Sandbox, sources: Mapping[str, int], cases: Sequence[dict[str, Any]], reasons: Counter[str]
) -> dict[str, list[bool]]:
    """Of each function, whether it gives each case's output. Calls that fail are wrong, and their reason is counted.

    What doesn't compile is no function. Only the sandbox parses it: a parser, too, is something to attack.
    """
    right = {}
    for source, times in sources.items():
        results = _call_all(sandbox, source, [case["input"] for case in cases])
        if results[0].failure == "syntax_error":
            reasons["syntax_error"] += times
            continue
        reasons["function_repeated"] += times - 1
        failures = {result.failure.split(":")[0] for result in results if result.failure}
        reasons.update(f"call_{failure}" for failure in failures)
        right[source] = [
            result.failure is None and result.value == case["output"]
            for result, case in zip(results, cases, strict=True)
        ]
    return right


def resolve_thresholds(thresholds: Thresholds | str) -> Thresholds:
    """Thresholds by the name of a preset, or as given.

    Raises:
        ConfigError: an unknown name.
    """
    if isinstance(thresholds, str) and thresholds not in PRESETS:
        raise ConfigError(f"thresholds must be {', '.join(PRESETS)} or Thresholds(…); got {thresholds!r}.")
    return PRESETS[thresholds] if isinstance(thresholds, str) else thresholds


def _call_all(sandbox: Sandbox, source: str, inputs: Sequence[str]) -> list[Result]:
    """A function's results; one that runs out of time on its first two inputs is given up, with ``timeout``."""
    results = sandbox.call(source, inputs[:_TIMEOUTS])
    if len(results) == _TIMEOUTS and all(result.failure == "timeout" for result in results):
        return results + [Result(None, "timeout")] * (len(inputs) - _TIMEOUTS)
    return results + (sandbox.call(source, inputs[_TIMEOUTS:]) if len(inputs) > _TIMEOUTS else [])
