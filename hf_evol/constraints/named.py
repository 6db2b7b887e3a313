"""Constraints in the words of the model that named them, and which of these code can check."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hf_evol.constraints import counts
from hf_evol.constraints.constraint import Constraint
from hf_evol.prompts.constraints import asks_for
from hf_evol.prompts.words import numbers

# What code alone can be believed to count, by what texts say of it.
_COUNTABLE = ("items", "layout", "structure", "marks", "case", "questions", "lines", "start", "end")
_COUNTED = re.compile(
    r"(?i)\b(?:letters?|semicolons?|colons?|parenthes\w+|dash(?:es)?|contractions?|once|twice|single|exactly|one)\b|[\"“]"
)
# Of a number of what: the count. First what each response has.
_OF_ALL = {"word": "words", "sentence": "sentences", "paragraph": "paragraphs", "line": "lines"}
_KINDS = _OF_ALL | {
    "bullet": "bullets", "bullet point": "bullets", "numbered point": "numbered_items", "numbered item": "numbered_items",
    "numbered step": "numbered_items", "heading": "headings", "question": "questions",
}  # fmt: skip
_FORMS = {
    r"bullet(?:s| points?|ed list)|list of bullet points": "bullets", r"numbered list": "numbered_items", r"table": "table_rows",
    r"json": "json_values", r"headings": "headings", r"code blocks?": "code_blocks", r"commas": "commas",
    r"question marks": "questions",
}  # fmt: skip
_GROUPS = {
    "words": "size", "sentences": "size", "paragraphs": "layout", "lines": "layout", "bullets": "items", "numbered_items": "items",
    "table_rows": "structure", "json_values": "structure", "headings": "structure", "code_blocks": "structure", "commas": "marks",
    "questions": "questions", "occurrences": "keyword",
}  # fmt: skip
_OPENS = r"(?:(?:write|use|answer|respond|reply|include|give|format|put|present|keep|limit)(?: it| (?:the|your) (?:answer|response))?(?: as| in| with| to| into)? )?"
_NEVER = r"(?:do not|don['’]t|never) (?:use|write|include|add|exceed)"
_BOUND = re.compile(
    rf"(?i)(?:{_OPENS}(?:(?P<at_most>at most|no more than|not more than|up to|a maximum of|within)|(?P<under>fewer than|less than|under)|"
    rf"(?P<at_least>at least|no fewer than|no less than|a minimum of)|(?P<over>more than)|exactly)?|(?P<never>{_NEVER} more than)) ?"
    rf"(?P<n>\d+|one|two|three|four|five|six|seven|eight|nine|ten) (?:short |simple )?(?P<kind>{'|'.join(sorted(_KINDS, key=len, reverse=True))})s?"
    r"(?: (?:or (?:(?P<or_more>more)|(?P<or_fewer>fewer|less))|in total|long))?"
)
_FORM = re.compile(
    rf"(?i)(?:{_OPENS}|(?P<never>(?:{_NEVER}(?: any)?|avoid(?: using)?(?: any| all)?|use no) ))(?:an? )?(?P<form>{'|'.join(_FORMS)})"
)
_WORD = re.compile(
    r"(?i)(?:(?:use|include|mention|contain)|(?P<never>(?:do not|don['’]t|never) (?:use|include|mention)|avoid(?: using)?)) the (?:exact )?"
    r"(?:word|phrase|term|keyword) (?:\"(?P<a>[^\"\n]{2,60})\"|“(?P<b>[^“”\n]{2,60})”|'(?P<c>[^'\n]{2,60})')(?: at least once)?"
)


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


def group_of(constraint: Constraint) -> str:
    """The group of `hf_evol.constraints.offers.offers` that a constraint of `measurable` belongs to."""
    return _GROUPS[constraint.kind]


def is_countable(text: str) -> bool:
    """Whether a constraint is about numbers, words or the form of a response, which no judge can be believed to count."""
    return bool(numbers(text) or _COUNTED.search(text)) or any(asks_for(group, text) for group in _COUNTABLE)


def measurable(text: str) -> Constraint | None:
    """What code can check of a constraint: all that it says, and nothing else; None where its words are of no known kind."""
    said = text.strip().rstrip(".!")
    if found := _WORD.fullmatch(said):
        return _there("occurrences", found["never"], {"text": found["a"] or found["b"] or found["c"]})
    if found := _FORM.fullmatch(said):
        kind = next(kind for form, kind in _FORMS.items() if re.fullmatch(rf"(?i){form}", found["form"]))
        return _there(kind, found["never"], {})
    if found := _BOUND.fullmatch(said):
        kind, n = _KINDS[found["kind"].lower()], int((numbers(found["n"]) or (1,))[0])
        if found["or_more"] or found["or_fewer"]:
            bounded = any(found[name] for name in ("at_most", "under", "at_least", "over", "never"))
            return None if bounded else Constraint(kind, n, None) if found["or_more"] else Constraint(kind, None, n)
        if found["at_most"] or found["under"] or found["never"]:
            return Constraint(kind, None, n - bool(found["under"]))
        return Constraint(kind, n + bool(found["over"]), None if found["at_least"] or found["over"] else n)
    return None


def is_telling(constraint: Constraint, response: str) -> bool:
    """Whether a bound that a response meets is one that a person would state: not more than twice as wide as need be."""
    if constraint.kind not in _OF_ALL.values():
        return True
    count = getattr(counts, constraint.kind)(response)
    if constraint.at_most is None:
        return constraint.at_least is not None and constraint.at_least > 1 and 2 * constraint.at_least >= count
    return constraint.at_least is not None or 2 * count >= constraint.at_most > 1


def _there(kind: str, forbidden: str | None, parameters: dict[str, str]) -> Constraint:
    return Constraint(kind, None if forbidden else 1, 0 if forbidden else None, parameters)
