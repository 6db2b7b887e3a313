"""Verification functions and test cases of a constraint: found in completions, and cross-validated.

The rule is AutoIF's (arXiv:2406.13542), with the paper's thresholds (arXiv:2412.11231, Scenario 2).
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_evol.autoif.sandbox import Sandbox
from hf_evol.errors import ConfigError

_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?```", re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_BOOLEANS = {"true": True, "false": False}


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


def parse_completion(text: str) -> tuple[str, list[dict[str, Any]]] | str:
    """The function and the cases in one completion, or why there are none.

    The JSON object may be in a fence or bare, with what models get wrong: raw line breaks in strings, trailing commas,
    Python's notation, "true" for true. Cases without a text and a truth value are left out.

    Returns:
        (source of ``evaluate``, cases with ``input`` and ``output``), or ``no_json``, ``no_function`` or ``no_cases``.
    """
    data = _find_object(text)
    if data is None:
        return "no_json"
    source, listed = data.get("func"), data.get("cases")
    if isinstance(source, list):
        source = "\n".join(map(str, source))
    if not isinstance(source, str) or "evaluate" not in source:
        return "no_function"
    cases = [case for entry in listed if (case := _case(entry))] if isinstance(listed, list) else []
    return (source.strip(), cases) if cases else "no_cases"


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
        instruction: the constraint, carried through.
        completions: texts with a JSON object of ``func`` and ``cases`` each.
        thresholds: a `Thresholds`, or ``"paper"`` or ``"autoif"``.
        sandbox: one to use for many constraints; by default a new one.

    Returns:
        ``instruction``; ``status`` (``ok``, ``too_few_cases`` or ``too_few_functions``); ``functions`` and ``cases`` that
        are kept; ``accuracies`` of the kept functions; ``n_functions`` and ``n_cases`` before, without repetitions; and
        ``reasons``: how many completions, functions and cases were lost to what.
    """
    if isinstance(thresholds, str):
        if thresholds not in PRESETS:
            raise ConfigError(f"thresholds must be {', '.join(PRESETS)} or Thresholds(…); got {thresholds!r}.")
        thresholds = PRESETS[thresholds]
    reasons: Counter[str] = Counter()
    functions, cases = _collect(completions, reasons)
    if sandbox is None:
        with Sandbox() as own:
            right = _right(own, functions, cases, reasons)
    else:
        right = _right(sandbox, functions, cases, reasons)
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
        "n_functions": len(functions),
        "n_cases": len(cases),
        "reasons": {reason: count for reason, count in reasons.items() if count},
    }


def _collect(completions: Sequence[str], reasons: Counter[str]) -> tuple[list[str], list[dict[str, Any]]]:
    functions: dict[str, None] = {}
    cases: dict[tuple[str, bool], dict[str, Any]] = {}
    for completion in completions:
        parsed = parse_completion(completion)
        if isinstance(parsed, str):
            reasons[parsed] += 1
            continue
        source, found = parsed
        try:
            compile(source, "<evaluate>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            reasons["syntax_error"] += 1
        else:
            reasons["function_repeated"] += source in functions
            functions.setdefault(source)
        for case in found:
            reasons["case_repeated"] += (case["input"], case["output"]) in cases
            cases.setdefault((case["input"], case["output"]), case)
    return list(functions), list(cases.values())


def _right(
    sandbox: Sandbox, functions: Sequence[str], cases: Sequence[dict[str, Any]], reasons: Counter[str]
) -> dict[str, list[bool]]:
    """Of each function, whether it gives each case's output. Calls that fail are wrong, and their reason is counted."""
    right = {}
    for source in functions:
        results = sandbox.call(source, [case["input"] for case in cases])
        failures = {result.failure.split(":")[0] for result in results if result.failure}
        reasons.update(f"call_{failure}" for failure in failures)
        right[source] = [
            result.failure is None and result.value == case["output"]
            for result, case in zip(results, cases, strict=True)
        ]
    return right


def _case(entry: Any) -> dict[str, Any] | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), str):
        return None
    output = entry.get("output")
    if isinstance(output, str):
        output = _BOOLEANS.get(output.strip().lower())
    return {"input": entry["input"], "output": output} if isinstance(output, bool) else None


def _find_object(text: str) -> dict[str, Any] | None:
    candidates = [match.group(1) for match in _FENCE.finditer(text)]
    if "{" in text and "}" in text:  # bare, or with a fence inside of a string
        candidates.append(text[text.index("{") : text.rindex("}") + 1])
    for candidate in candidates:
        data = _loads(candidate.strip())
        if isinstance(data, list) and len(data) == 1:
            data = data[0]
        if isinstance(data, dict) and ("func" in data or "cases" in data):
            return data
    return None


def _loads(text: str) -> Any:
    for attempt in (text, _TRAILING_COMMA.sub(lambda match: match.group(1) or "", text)):
        try:
            return json.loads(attempt, strict=False)  # raw line breaks in strings are allowed
        except (ValueError, RecursionError):
            continue
    if re.search(r'"(?:func|cases)"\s*:', text):  # broken JSON: the paper's procedure leaves it out, and so does this
        return None
    try:
        return ast.literal_eval(text)  # a mapping in Python's notation: single quotes, True and False
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
