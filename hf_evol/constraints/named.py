"""Constraints in the words of the model that named them, and which of these code can check."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hf_evol.constraints.constraint import Constraint
from hf_evol.prompts.constraints import asks_for
from hf_evol.prompts.words import numbers

# What code alone can be believed to count, by what texts say of it.
_COUNTABLE = ("items", "layout", "structure", "marks", "case", "questions", "lines", "start", "end")
_KINDS = {  # of a number of what: the group and the count
    "word": ("size", "words"), "sentence": ("size", "sentences"), "paragraph": ("layout", "paragraphs"), "line": ("layout", "lines"),
    "bullet": ("items", "bullets"), "bullet point": ("items", "bullets"), "numbered point": ("items", "numbered_items"),
    "numbered item": ("items", "numbered_items"), "numbered step": ("items", "numbered_items"), "heading": ("structure", "headings"),
    "question": ("questions", "questions"),
}  # fmt: skip
_THERE = {  # or not: the group and the count
    r"bullet(?:s|ed list| points?)": ("items", "bullets"), r"numbered list": ("items", "numbered_items"),
    r"table": ("structure", "table_rows"), r"json": ("structure", "json_values"), r"headings?": ("structure", "headings"),
    r"code blocks?": ("structure", "code_blocks"), r"commas?": ("marks", "commas"), r"question marks?": ("questions", "questions"),
}  # fmt: skip
_BOUND = re.compile(
    r"(?i)\b(?:(?P<at_most>at most|(?:no|not) more than|up to|a maximum of)|(?P<under>fewer than|less than|under)|"
    r"(?P<at_least>at least|(?:no|not) (?:fewer|less) than|a minimum of)|(?P<over>more than)|exactly|in|of|with|use|write)\s"
    r"(?P<n>\d+|one|two|three|four|five|six|seven|eight|nine|ten)\s(?:short |simple )?"
    rf"(?P<kind>{'|'.join(sorted(_KINDS, key=len, reverse=True))})s?\b"
)
_WORD = re.compile(r"(?i)\b(?:word|phrase|term|keyword)\s+[\"“']([^\"”'\n]{2,60})[\"”']")
_NOT = re.compile(r"(?i)\b(?:not|no|never|without|avoid|don['’]t)\b")
_OF_PARTS = re.compile(r"(?i)\b(?:each|every|per|begin\w*|start\w*|end\w*|first|last|some|about)\b")


@dataclass(frozen=True)
class Named:
    """A constraint in a model's words, and what has found it met: a `Constraint`, or the name of the judge."""

    text: str
    verified: Constraint | str

    def data(self) -> dict[str, str]:
        """As rows keep it."""
        if isinstance(self.verified, Constraint):
            return self.verified.data()
        return {"kind": "judged", "parameters": json.dumps({"judge": self.verified}, ensure_ascii=False)}


def is_countable(text: str) -> bool:
    """Whether a constraint is about numbers, words or the form of a response, which no judge can be believed to count."""
    return bool(numbers(text) or _WORD.search(text)) or any(asks_for(group, text) for group in _COUNTABLE)


def measurable(text: str) -> tuple[str, Constraint] | None:
    """A constraint's group and what code checks of it; None where that can't be told by its words."""
    if _OF_PARTS.search(text):
        return None
    if found := _BOUND.search(text):
        group, kind = _KINDS[found["kind"].lower()]
        n = int((numbers(found["n"]) or (1,))[0])
        if _NOT.search(text.replace(found[0], "")):
            return None
        if found["at_most"] or found["under"]:
            return group, Constraint(kind, None, n - bool(found["under"]))
        at_least = found["at_least"] or found["over"]
        return group, Constraint(kind, n + bool(found["over"]), None if at_least else n)
    if numbers(text):
        return None
    if found := _WORD.search(text):
        return "keyword", _there("occurrences", text, {"text": found[1]})
    for pattern, (group, kind) in _THERE.items():
        if re.search(rf"(?i)\b{pattern}\b", text):
            return group, _there(kind, text, {})
    return None


def _there(kind: str, text: str, parameters: dict[str, str]) -> Constraint:
    forbidden = _NOT.search(text) is not None
    return Constraint(kind, None if forbidden else 1, 0 if forbidden else None, parameters)
