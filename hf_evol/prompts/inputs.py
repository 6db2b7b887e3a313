"""What a model is shown to make up the input that an instruction needs (Self-Instruct, arXiv:2212.10560).

From the paper comes that, where a task has a few known answers, its input is made up for one of them, so that not all get the same. The
wording and the examples of ``inputs.yaml`` are ours. Models of a few hundred million parameters carry a task out that they are shown, and make
up good names and poor texts: a name is asked for without its task.
"""

from __future__ import annotations

import random
import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import yaml

from hf_evol.prompts.template import Turns, chat
from hf_evol.prompts.words import numbers, words

_READ = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_NAMES, _TEXTS = (
    {word: entry["examples"] for entry in _READ[form] for word in entry["words"].split()} for form in ("names", "texts")
)
_SHOWN = 6
NAME, TEXT, LABELLED = "name", "text", "labelled"  # what an input is made up as

SYSTEM = (
    "You make up what tasks are about: a name, a text, some data or code. Each reply is that and nothing else. It is never the "
    "answer to the task."
)
# How the noun of what is given is found, the surest first: "the given short story", "the list below", "Correct the sentence".
_POINTS = [
    re.compile(
        r"(?i)\b(?:following|attached|given|provided|shown|listed|certain|particular|specific|this|these|those)\b(?=((?: [\w'’-]+){1,3}))"
    ),
    re.compile(r"(?i)((?: [\w'’-]+)) (?:below|above)\b"),
    re.compile(r"(?i)\b(?:the|an?|any|some|each)\b(?=((?: [\w'’-]+){1,3}))"),
]
_ENDS_NOUN = frozenset("about and as at by for from has have in into is of on or so that to with".split())
# What says more of a thing behind its noun: "an article about the sea", "a person who sings".
_SAYS_MORE = re.compile(r"(?i)\W+(?:about|of|from|by|with|on|that|which|who|whose|where|related)\b")
_LABELS = re.compile(
    r"(?i)\b(?:as|is|are|into|be) (?:an? )?((?:[\w-]+(?: [\w-]+)?, (?:an? )?)*[\w-]+(?: [\w-]+)?),? or (?:an? )?([\w-]+(?: [\w-]+)?)(?=[.?!]*\Z)"
)
_UNCOUNTED = frozenset("code data feedback guidance information software food statistics".split())


class Wanted(NamedTuple):
    """What an instruction needs: the noun that names it, and whether it is a name, of which any one serves whatever the task, a text
    for the task, or one for an answer that the task names."""

    noun: str
    form: str


def wanted(instruction: str) -> Wanted | None:
    """What an English instruction speaks of as if it stood there; None if no example is of that kind, or there is more than one."""
    for points in _POINTS:
        found = list(points.finditer(instruction))
        for place in found:
            said = list(takewhile(lambda word: word not in _ENDS_NOUN, words(place[1])))
            if noun := next(filter(_known, reversed(said)), None):
                return None if any(map(numbers, said)) else _wanted(noun, instruction, place.start())
        if found:
            return None
    return None


def _wanted(noun: str, instruction: str, start: int) -> Wanted | None:
    if labels(instruction):
        return Wanted(noun, LABELLED)
    if _known(noun) in _TEXTS:
        return Wanted(noun, TEXT)
    behind = instruction[instruction.lower().index(noun, start) + len(noun) :]
    return None if _SAYS_MORE.match(behind) else Wanted(noun, NAME)


def _known(noun: str) -> str | None:
    """A noun, or its singular, if there are examples of it."""
    return next((word for word in (noun, noun.removesuffix("s")) if word in _NAMES or word in _TEXTS), None)


def labels(instruction: str) -> list[str]:
    """The answers that an instruction names: of "classify it as good, fair or bad", the three."""
    found = _LABELS.search(instruction)
    return [re.sub(r"^an? ", "", label.strip()) for label in [*found[1].split(","), found[2]]] if found else []


def input_prompt(instruction: str, given: Wanted, pick: random.Random) -> tuple[Turns, list[str]]:
    """The turns that ask for an instruction's input, and the inputs that they show, drawn."""
    noun = _known(given.noun)
    if given.form == LABELLED:
        examples = [(_ask(wanted(task).noun, task, label), text) for task, label, text in _READ["labelled"]]
        asked = _ask(noun, instruction, pick.choice(labels(instruction)))
    elif given.form == TEXT:
        examples = [(_ask(wanted(task).noun, task), text) for task, text in _TEXTS[noun].items()]
        asked = _ask(noun, instruction)
    else:
        asked = _ask(noun)
        examples = [(asked, text) for text in _NAMES[noun]]
    shown = pick.sample(examples, min(_SHOWN, len(examples)))
    return chat(asked, SYSTEM, shown), [text for _, text in shown]


def _ask(noun: str, task: str | None = None, answer: str | None = None) -> str:
    article = "some" if noun in _UNCOUNTED or noun.endswith("s") else "an" if noun[0] in "aeiou" else "a"
    answered = f" The right answer to it is: {answer}." if answer else ""
    return f"Give me {article} {noun}" + (f" for this task.{answered}\n\n{task}" if task else ".")
