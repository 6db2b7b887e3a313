"""Auto Evol-Instruct: one prompt of four steps, and how to read the answers that models really give.

The facts come from Auto Evol-Instruct (arXiv:2406.00770) and the paper's Scenario 3 (arXiv:2412.11231); the wording is
ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hf_evol.errors import ConfigError
from hf_evol.prompts.evol_instruct import IN_DEPTH, THING, Method
from hf_evol.prompts.examples import EXAMPLES, Pairs
from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat

_SAID = table_of(__file__)
ANALYSE, REVISE = _SAID["analyse"], _SAID["revise"]

_REPLY = "Step 1: Methods\n{}\nStep 2: Plan\n{}\nStep 3: Rewriting\n{}\nStep 4: Final instruction\n{}"
_CLAUSES = re.compile(r", (?:and |then )?")
_BEFORE = re.compile(r"\A(?:(?:also|and|then) )+")


def _added(given: str, evolved: str) -> list[str]:
    """The clauses that an evolved text adds behind the given one; none where it adds within."""
    head = given.rstrip(" .?!")
    addition = evolved[len(head) :].strip(" .?!,") if evolved.startswith(head) else ""
    clauses = _CLAUSES.split(_BEFORE.sub("", addition[:1].lower() + addition[1:]))
    return clauses if all(len(clause.split()) > 2 for clause in clauses) else list(filter(None, [addition]))


def _examples(domain: str) -> Pairs:
    """Worked examples of the four steps, made of those in depth: the first step lists the clauses that one method adds to a text, and
    one that another method adds to it; the others have the evolved text. Only of math there are some by hand."""
    if by_hand := EXAMPLES[domain].get("auto"):
        return by_hand
    added: dict[str, list[tuple[str, list[str]]]] = {}
    for given, evolved in (pair for name in IN_DEPTH for pair in EXAMPLES[domain][name]):
        if clauses := _added(given, evolved):
            added.setdefault(given, []).append((evolved, clauses))
    pairs = []
    for given, several in added.items():
        for (evolved, clauses), (_, (other, *_)) in zip(several, [*several[1:], several[0]], strict=True):
            ways = dict.fromkeys([*clauses, other])
            listed = "\n".join(f"{number}. {way[:1].upper()}{way[1:]}." for number, way in enumerate(ways, start=1))
            pairs.append((given, _REPLY.format(listed, evolved, evolved, evolved)))
    return tuple(pairs)


AUTO = Method(
    "auto",
    {
        domain: chat("{instruction}", _SAID["steps"].format(thing=thing), _examples(domain))
        for domain, thing in THING.items()
    },
    kind="auto",
    shots=3,
)


def keywords_prompt(ways: Sequence[str]) -> Turns:
    """The turns that ask for a key phrase for each way of making a task more complex."""
    return chat("\n".join(f"- {way}" for way in ways), _SAID["keywords"], EXAMPLES["auto"]["keywords"])


_LINE = r"^[ \t>#*_\-]*"
_END = r"[ \t]*(?:[#*_]+[ \t]*:?[ \t]*[#*_]*|[:.\-–][ \t]*[#*_]*|(?=\n)|\Z)"
_STEPS = {
    number: re.compile(rf"(?im){_LINE}(?:step|part)[ \t]*{number}\b[ \t]*[:.)\-–]?[ \t]*[#*_]*[^\n:]{{0,60}}?{_END}")
    for number in (1, 2, 3, 4)
}
_FINAL = re.compile(
    rf"(?im){_LINE}(?:\d[.)][ \t]*)?[#*_]*final(?:ly)?[ \t]+(?:(?:rewritten|evolved|reviewed|revised|complex)[ \t]+)?"
    rf"(?:instruction|prompt|version|question|rewritten){_END}"
)
# "Step 4: Name two rivers." has its text where others have the step's name.
_INLINE = re.compile(rf"(?i){_LINE}step[ \t]*4[ \t]*:[ \t]*((?!.*\b(?:final|review|rewrit|instruction)).+)")
_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*•+]|\(?\d{1,2}[.):])[ \t]+(.+?)[ \t]*$")


def final_instruction(answer: str) -> str | None:
    """What follows the last heading of the fourth step, as models write it; None where there is no such heading."""
    headings = [match for pattern in (_STEPS[4], _FINAL) for match in pattern.finditer(answer)]
    if not headings:
        return None
    last = max(headings, key=lambda match: match.end())
    text = answer[last.end() :].strip()
    if not text and (inline := _INLINE.match(last.group())):
        return inline[1].strip()
    return re.sub(r"^[#*_]{2,}[ \t]*\n", "", text).strip()


def trajectory(answer: str) -> list[str]:
    """The ways listed under the first step, without the list's marks."""
    first = _STEPS[1].search(answer)
    start = first.end() if first else 0
    ends = [match.start() for number in (2, 3, 4) if (match := _STEPS[number].search(answer, start))]
    part = answer[start : min(ends, default=len(answer) if first else 0)]
    return [re.sub(r"[*_`]{1,3}", "", item).strip() for item in _ITEM.findall(part)]


KEEP_MARK = " Keep the mark {instruction}, which stands for the given instruction, exactly once."


def revised_method(reply: str, of: Method, name: str) -> Method | None:
    """The method in a reply to `REVISE`: ``of`` with another first turn for general instructions, and those alone; None where
    the reply lacks a step's heading, or the mark of the instruction where the turn had it."""
    found = re.search(r"(?is)<method>(.*?)</method>", reply)
    text = (found[1] if found else reply).strip()
    text = re.sub(r"(?s)\A```[a-z]*\n(.*)\n```\Z", r"\1", text)
    (role, before), *others = of.template[0][1]
    marks = text.count("{instruction}") == before.count("{instruction}")
    if not marks or not all(step.search(text) for step in _STEPS.values()):
        return None
    try:
        return Method(name, ((role, text), *others), "auto", of.shots, of.same_language)
    except ConfigError:  # other marks in braces
        return None
