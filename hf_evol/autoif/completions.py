"""Verification functions and cases in the completions of models, as one Python block or as a JSON object."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from hf_evol.prompts.autoif import CHECKS_SHOWN

_Found = tuple[str, list[dict[str, Any]]] | str  # a function's source and its cases, or why there are none

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)
_TO_FENCE = (
    r"""((?:\"{3}.*?\"{3}|'{3}.*?'{3}|[^\n"']+|.)*?)(?:^[ \t]*```|\Z)"""  # to the first one outside of long strings
)
_BLOCK = re.compile(rf"```(?:python3?|py)?[ \t]*\n{_TO_FENCE}", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_BARE = re.compile(rf"^(?=import \w|from [\w.]+ import\b|def \w|\w+ = ){_TO_FENCE}", re.DOTALL | re.MULTILINE)
_FUNCTION = re.compile(r"^[ \t]*(?:def[ \t]+evaluate\b|evaluate[ \t]*=)", re.MULTILINE)
_CASES = re.compile(r"^[ \t]*(?:test_?)?cases[ \t]*(?::[^=\n]*)?=[ \t]*\[", re.MULTILINE | re.IGNORECASE)
_DEFINES = re.compile(r"(?:def|class|import|from)\b|\w+[ \t]*(?::[^=\n]*)?=(?!=)|[@#\])}]")
# A list's entries that hold nothing but plain values, and what else must be told apart to find them and the list's end. A
# string that doesn't end takes the rest of its line, or all that follows.
_STRING = r"""
    [rRuU]?(?:\"{3}(?:[^"\\]|\\.|"(?!""))*+\"{3} | '{3}(?:[^'\\]|\\.|'(?!''))*+'{3}
    | (?!\"{3})"(?:[^"\\\n]|\\[^\n])*+" | (?!'{3})'(?:[^'\\\n]|\\[^\n])*+')
"""
_TOKEN = re.compile(
    rf"""
    (?P<entry>[\[({{](?:{_STRING}|(?:[Tt]rue|[Ff]alse)\b|[\s,:]|\#[^\n]*)*+[\])}}]) | (?P<skipped>{_STRING}|\#[^\n]*|\w+)
    | (?P<opens>[\[({{]) | (?P<closes>[\])}}]) | (?P<endless>\"{{3}}|'{{3}}) | (?P<unclosed>["'][^\n]*)
    """,
    re.DOTALL | re.VERBOSE,
)
_CONSTANT = re.compile(rf"({_STRING}) | \#[^\n]* | (true|false)", re.DOTALL | re.VERBOSE)
_MOST_CASES, _MOST_CHARACTERS = 100, 100_000  # that are read of one list; three cases are asked for

_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r'"([^"]+)"')
_FEW_WORDS = 3  # so many words that are all an example's are no chance


def parse_completion(text: str, rule: str = "") -> _Found:
    """The function and the cases in one completion, or why there are none.

    They may come as Python, a function ``evaluate`` and a list ``cases`` of pairs, in a fence or bare, which the token
    limit may have cut off in the list; or as AutoIF's JSON object of ``func`` and ``cases``, in a fence or bare. Left out are
    cases without a text and a truth value ("true" is one, too), those whose text no file can hold (half of a surrogate
    pair), and those made of the words of an example that the prompt shows for another rule. Of Python, the list's plain
    values alone are evaluated here.

    Args:
        text: the completion.
        rule: the constraint that it is for.

    Returns:
        (source of ``evaluate``, cases with ``input`` and ``output``), or ``no_json`` (neither form), ``no_function``,
        ``no_cases``, or ``copied``: the function is an example's for another rule, or has the word that it is about, or
        all cases are the examples'.
    """
    found = _of_object(text) or _of_python(text)
    if isinstance(found, str):
        return found
    source, cases = found
    for shown, function, shown_cases in CHECKS_SHOWN:
        if _plain(shown) != _plain(rule):
            if _is_shown_function(source, rule, shown, function):
                return "copied"
            cases = [case for case in cases if not _is_shown_case(case["input"], [text for text, _ in shown_cases])]
    return (source, cases) if cases else "copied"


def _plain(rule: str) -> str:
    return " ".join(rule.casefold().split()).rstrip(".!")


def _is_shown_function(source: str, rule: str, shown: str, function: str) -> bool:
    """Whether it is an example's function, or has a text that the example's rule quotes and its own rule doesn't name."""
    ours, theirs = ("".join(code[max(code.find("def evaluate"), 0) :].split()) for code in (source, function))
    marks = [mark for mark in _QUOTED.findall(shown.lower()) if mark not in rule.lower()]
    return ours == theirs or any(f"{quote}{mark}{quote}" in source.lower() for mark in marks for quote in "\"'")


def _is_shown_case(text: str, shown: Sequence[str]) -> bool:
    words = _WORD.findall(text.casefold())
    known = _WORD.findall(" ".join(shown).casefold())
    return text in shown or (len(words) >= _FEW_WORDS and set(words) <= set(known))


def _of_object(text: str) -> _Found | None:
    """What the JSON object with ``func`` or ``cases`` says; None where there is no such object."""
    candidates = [found for found in _FENCE.findall(text) if "{" in found]
    if "{" in text and "}" in text:  # bare, or with a fence inside of a string
        candidates.append(text[text.index("{") : text.rindex("}") + 1])
    for candidate in candidates:
        try:
            data = json.loads(candidate, strict=False)  # with raw line breaks in strings
        except (ValueError, RecursionError):  # broken JSON: the paper's procedure leaves it out, and so does this
            continue
        if isinstance(data, dict) and ("func" in data or "cases" in data):
            source, listed = data.get("func"), data.get("cases")
            if not isinstance(source, str) or "evaluate" not in source:
                return "no_function"
            cases = _cases(listed) if isinstance(listed, list) else []
            return (source.replace("\r\n", "\n").strip(), cases) if cases else "no_cases"
    return None


def _cases(entries: Sequence[Any]) -> list[dict[str, Any]]:
    """Those entries that are a text, which a file can hold, and a truth value."""
    cases = []
    for entry in entries:
        if isinstance(entry, dict):
            entry = (entry.get("input"), entry.get("output"))
        if not isinstance(entry, (list, tuple)) or len(entry) != 2:
            continue
        text, output = entry
        if isinstance(output, str):
            output = {"true": True, "false": False}.get(output.strip().lower())
        if isinstance(text, str) and isinstance(output, bool) and text == text.encode(errors="ignore").decode():
            cases.append({"input": text, "output": output})
    return cases


def _literal(text: str) -> Any:
    """The plain value that a text writes down, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" and the like
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _of_python(text: str) -> _Found:
    """What the blocks that may hold Python say together, else what follows the first line of code."""
    text = text.replace("\r\n", "\n")
    blocks = [
        textwrap.dedent(block) for block in _BLOCK.findall(text) if "evaluate" in block or "cases" in block.lower()
    ]
    found = _read_code("\n".join(blocks), bare=False)
    if isinstance(found, str) and '"func"' not in text and (code := _BARE.search(text)):  # else, it is broken JSON
        found = _read_code(code[1], bare=True)
    return found


def _read_code(code: str, bare: bool) -> _Found:
    """The source without the list of cases and what uses it, and the cases."""
    assigned = _CASES.search(code)
    if assigned is None:
        return "no_cases" if _FUNCTION.search(code) else "no_json"
    entries, end = _read_list(code, assigned.end())
    before = code[: assigned.start()]
    before = _definitions(before, 1) if bare else before.rstrip()
    source = f"{before}\n{_definitions(code[end:], functions=0 if _FUNCTION.search(before) else 1)}".strip()
    if not _FUNCTION.search(source):
        return "no_function"
    cases = _cases([_literal(entry) for entry in entries])
    return (source, cases) if cases else "no_cases"


def _definitions(code: str, functions: int) -> str:
    """The first lines that import or define something, so many of them ``evaluate``: neither words, nor what uses the cases."""
    lines: list[str] = []
    for line in code.splitlines():
        if line.strip() and not line[0].isspace():
            functions -= bool(_FUNCTION.match(line))
            if not _DEFINES.match(line) or _CASES.match(line) or functions < 0:
                break
        lines.append(line)
    while lines and lines[-1].lstrip()[:1] in ("", "#"):
        lines.pop()
    return "\n".join(lines)


def _read_list(code: str, start: int) -> tuple[list[str], int]:
    """The entries with nothing but plain values in a list that begins before ``start``, and where it ends."""
    entries: list[str] = []
    depth = 1
    for token in _TOKEN.finditer(code, start, start + _MOST_CHARACTERS):
        kind = token.lastgroup
        if kind == "entry" and depth == 1 and len(entries) < _MOST_CASES:
            entries.append(_CONSTANT.sub(lambda found: found[1] or (found[2] or "").capitalize(), token.group()))
        elif kind == "opens":
            depth += 1
        elif kind == "closes":
            depth -= 1
            if depth == 0:
                return entries, token.end()
        elif kind == "unclosed":
            depth = 1
        elif kind == "endless":
            break
    return entries, len(code)
