"""The forms of sentences that ask for something, by their English words: orders, questions, wishes."""

from __future__ import annotations

import re

from hf_evol.prompts.patterns import AnyCase
from hf_evol.prompts.tables import patterns_of
from hf_evol.prompts.words import VERBS, remembering, words

_AUXILIARIES = "can could would will should is are was were do does did has have".split()
OPENS_QUESTION = re.compile(rf"(?i)\A(?:who|what|when|where|why|which|whose|whom|how|if|{'|'.join(_AUXILIARIES)})\b")
_RE = patterns_of(__file__)
WISH = _RE.wish
OPENING = _RE.opening
_SPEECH = re.compile(r"[\"“][^\"“”]*[\"”]")
_SENTENCE_END = re.compile(r"([.!?。？！])[\"”')]*\s+")


def only_in(pattern: re.Pattern[str] | AnyCase, text: str, other: str) -> re.Match[str] | None:
    """Where a text has what the other one lacks."""
    found = pattern.search(text)
    return found if found and not pattern.search(other) else None


def is_instruction(text: str) -> bool:
    """Whether a text asks for something, by its English words: an imperative, a question or a wish."""
    return any(asks(sentence) for sentence in sentences(text))


@remembering
def sentences(text: str) -> tuple[str, ...]:
    lines = _SENTENCE_END.sub(lambda end: f"{end[1]}\n", text).split("\n")
    return tuple(line.strip() for line in lines if line.strip())


@remembering
def asks(sentence: str) -> bool:
    return sentence.rstrip(" \"”')*_`").endswith(("?", "？")) or is_order(sentence) or _is_question(sentence)


def _is_question(sentence: str) -> bool:
    said = words(OPENING.sub("", sentence, count=1))
    if len(said) < 3:
        return False
    if said[0] in ("when", "where"):  # "When it comes to …" opens a statement
        return said[1] in (*_AUXILIARIES, "and")
    if said[0] == "what":  # as "What a discovery" does
        return said[1] not in ("a", "an")
    return said[0] in ("how", "why", "who", "which")


@remembering
def is_order(sentence: str) -> bool:
    text = OPENING.sub("", sentence, count=1)
    said = words(text)
    if not said:
        return False
    if said[0] in VERBS and not (len(said) > 1 and said[1] in ("is", "are", "was", "were", "has", "have", "can", "of")):
        return True
    if WISH.search(_SPEECH.sub(" ", text)) or _RE.can_you.match(text):
        return True
    if _RE.setting.match(text):
        return any((start := words(clause)) and start[0] in VERBS for clause in _RE.clause.split(text)[1:])
    return False
