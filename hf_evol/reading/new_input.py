"""The input that an instruction needs: what of, and how a reply is read that makes one up (Self-Instruct, arXiv:2212.10560)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from hf_evol.columns import OK
from hf_evol.prompts.inputs import NAMES, TEXTS
from hf_evol.prompts.words import STOP_WORDS, VERBS, content, numbers, words
from hf_evol.reading.evolved import unwrap
from hf_evol.reading.faults import is_broken, is_refusal, runs
from hf_evol.reading.new_instruction import is_classification
from hf_evol.reading.replies import strip_thinking

_LONGEST_NAME = 12  # words
_LONGER = 2  # so many times the longest example's words at most
_LONGEST_LABEL = 3  # words
_NO_PROSE = [TEXTS[noun] for noun in ("code", "data", "words", "numbers")]
_NEAR = ("this", "these", "those")
# How the noun of what is given is found, the surest first: "the given short story", "the list below", "Correct the sentence".
_IS_GIVEN = r"\b(?:following|attached|given|provided|shown|listed|certain|particular|specific|this|these|those)\b"
_POINTS = [
    re.compile(rf"(?i){_IS_GIVEN}(?=((?: [\w'’-]+){{1,4}}))"),
    re.compile(r"(?i)((?: [\w'’-]+)) (?:below|above)\b"),
    re.compile(r"(?i)\b(?:the|an?|any|some|each)\b(?=((?: [\w'’-]+){1,4}))"),
]
_ENDS_NOUN = STOP_WORDS | frozenset("using contains contain containing based".split())
# What follows the noun of a name that is one of many: nothing, or how to go about the task.
_SAYS_NO_MORE = re.compile(
    rf"(?i)\s*(?:\Z|[.:!?,;] *(?:\Z|(?=[A-Z])|(?:and|then|using|in)\b)|and (?:{'|'.join(sorted(VERBS))})\b|(?:to|for) an? |(?:in|with|within|using) "
    r"(?:\d|one|two|three|four|five|ten|a (?:few|single|short|way|manner|sentence|paragraph|poem|table)|at|under|no|your|simple|less|detail)\b)"
)
_LEAD = re.compile(r"(?i)\A(?:sure|certainly|of course|okay|here)\b[^\n:]{0,80}:\s*")
_GAP = re.compile(
    r"(?i)\[(?:insert|your|name|link)\b[^\]\n]*\]|\((?:insert|your)\b[^)\n]*\)|<(?:insert|your|link|name)\b[^>\n]*>|\bno ?input\b|"
    r"\b(?:is|was|are) not (?:given|provided)\b|\bplease (?:share|provide)\b|\A\W*(?:https?://\S+|none|nothing|n/a)\W*\Z"
)
_WILL_NOT = re.compile(
    r"(?i)\bas an ai\b|\bi (?:can(?:no|['’])t|am unable to) (?:help|assist|provide|create|fulfil|answer)\b"
)


class Wanted(NamedTuple):
    """What an instruction needs: the noun that names it, whether any one serves whatever the task, and the answers that the
    instruction names."""

    noun: str
    is_name: bool
    answers: list[str]


def wanted(instruction: str) -> Wanted | None:
    """What an English instruction speaks of as if it stood there; None if there is no example of that, or it is more than one thing."""
    for points in _POINTS:
        found = list(points.finditer(instruction))
        if points is _POINTS[0] and sum(place[0].lower() not in _NEAR for place in found) > 1:
            return None
        for place in found:
            said = list(takewhile(lambda word: word not in _ENDS_NOUN, words(place[1])))
            first = next((at for at, word in enumerate(said) if word in NAMES or word in TEXTS), None)
            if first is None:
                continue
            more = len(list(takewhile(TEXTS.__contains__, said[first + 1 :])))  # a "news article", a "text message"
            if any(map(numbers, (*words(instruction[: place.start()])[-1:], *said[:first]))):
                return None
            is_sure = points is _POINTS[0] and first == more == 0
            return _wanted(said[first + more], instruction, is_sure, place)
        if found:
            return None
    return None


def _wanted(noun: str, instruction: str, is_sure: bool, place: re.Match[str]) -> Wanted | None:
    if answers := labels(instruction):
        return Wanted(noun, False, answers)
    if noun in TEXTS:
        return Wanted(noun, False, [])
    behind = instruction[place.end() :].lstrip()[len(noun) :]
    return Wanted(noun, True, []) if is_sure and _SAYS_NO_MORE.match(behind) else None


def labels(instruction: str) -> list[str]:
    """The answers that a classification names at its end: of "classify it as good, fair or bad", the three."""
    head, _, last = instruction.rstrip(" .?!:\n").rpartition(" or ")
    begins = [found.end() for found in re.finditer(r"(?i)\b(?:as|is|are|be)\b", head)]
    if not begins or not is_classification(instruction):
        return []
    named = [
        re.sub(r"(?i)\A\W*(?:(?:an?|the|either|about|being)\b\W*)*", "", part)
        for part in (*head[begins[-1] :].rstrip(" ,").split(","), last)
    ]
    named = [f"not {named[0]}" if label.lower() == "not" else label.strip() for label in named]
    return (
        named
        if len(set(named)) == len(named) > 1 and all(1 <= len(words(label)) <= _LONGEST_LABEL for label in named)
        else []
    )


def read_input(
    reply: str, instruction: str, given: Wanted, answer: str | None, shown: Sequence[str], finish_reason: str = "stop"
) -> tuple[str | None, str]:
    """The input in a reply, and its status.

    Args:
        reply: the model's raw text.
        instruction: that the input is for.
        given: what was asked for.
        answer: which the task is to have.
        shown: the inputs of the examples.
        finish_reason: ``"length"`` where the token limit ended the reply.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``; ``too_long`` (over
        twice the longest example's words, or 12 for a name); ``placeholder`` (a link, or a gap to be filled in); ``not_name``
        (more than one line, or no word); ``broken`` (repetition); ``repeats`` (what the instruction says); ``answered``
        (ends in the answer); ``copied`` (half of its words, or of its runs of words, are an example's).
    """
    text = unwrap(_LEAD.sub("", strip_thinking(reply).strip()))
    label = re.compile(
        rf"(?i)\A[\s*_#]*(?:(?:the|this|an?) )?(?:given )?(?:input|{re.escape(given.noun)})(?: is| are)?[\s*_]*(?::[\s*_]*|,? (?=[\"“]))"
    )
    text = unwrap(label.sub("", text).strip())
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    if finish_reason == "length":
        return text, "cut_off"
    return text, _fault(text, instruction, given, answer, shown) or OK


def _fault(text: str, instruction: str, given: Wanted, answer: str | None, shown: Sequence[str]) -> str | None:
    said, own = words(text), set(content(text))
    if (is_refusal(text) and given.is_name) or _WILL_NOT.search(text):
        return "refusal"
    if _GAP.search(text):
        return "placeholder"
    if given.is_name and ("\n" in text or not own):
        return "not_name"
    longest = _LONGER * max(len(words(example)) for example in shown)
    if len(said) > min(longest, _LONGEST_NAME if given.is_name else longest) or len(text) > 20 * max(
        longest, _LONGEST_NAME
    ):
        return "too_long"
    is_prose = not any(TEXTS.get(given.noun) is of for of in _NO_PROSE)
    if is_prose and own and is_broken(text, shown[0], True):
        return "broken"
    shared = len(own.intersection(content(instruction)))
    if (given.is_name and 2 * shared >= len(own)) or " ".join(words(instruction)) in " ".join(said):
        return "repeats"
    if answer and re.search(rf"(?i)\b{re.escape(answer)}\W*\Z", text):
        return "answered"
    parts = _parts(text)
    if any(text == example or (parts and 2 * len(parts & _parts(example)) >= len(parts)) for example in shown):
        return "copied"
    return None


def _parts(text: str) -> set[Any]:
    """What a copy has in common: words of a name, runs of words of a text."""
    said = words(text)
    return set(runs(said)) if len(said) > _LONGEST_NAME else set(content(text))
