"""Verification functions and cases in the completions of models."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?```", re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
_BOOLEANS = {"true": True, "false": False}


def parse_completion(text: str) -> tuple[str, list[dict[str, Any]]] | str:
    """The function and the cases in one completion, or why there are none.

    The JSON object may be in a fence or bare, with what models get wrong: raw line breaks in strings, trailing commas,
    Python's notation, "true" for true. Cases without a text and a truth value are left out, and so are those whose text
    no file can hold: half of a surrogate pair.

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
    return (source.replace("\r\n", "\n").strip(), cases) if cases else "no_cases"


def _case(entry: Any) -> dict[str, Any] | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("input"), str):
        return None
    try:
        entry["input"].encode()
    except UnicodeEncodeError:
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
