"""The forms of sentences that ask for something, by their English words: orders, questions, wishes."""

from __future__ import annotations

import re

from hf_evol.prompts.words import VERBS, words

OPENS_QUESTION = re.compile(
    r"\A(?:who|what|when|where|why|which|whose|whom|how|can|could|would|will|should|is|are|was|were|do|does|did|has|have|if)\b",
    re.IGNORECASE,
)
WISH = re.compile(
    r"\b(?:i (?:want|need|would like|wish|am looking)|i['’]d like|we need|your (?:task|job|goal) is|you (?:must|should|need to|have to|are to))\b",
    re.IGNORECASE,
)
_SPEECH = re.compile(r"[\"“][^\"“”]*[\"”]")
_SENTENCE = re.compile(r"(?<=[.!?。？！])[\"”')]*\s+|\n+")
OPENING = re.compile(
    r"\A[\s\-*•>#\"“'(`]*(?:\d{1,2}[.)]\s+)?(?:(?:question|task|problem|instruction|prompt|exercise|query)\s*:\s*)?(?:(?:please|then|now|next|first|finally|also|kindly|and|lastly|second|third)\b,?\s+)*",
    re.IGNORECASE,
)
_SETTING = re.compile(
    r"\A(?:given|using|with|for|in|if|as|from|based|assuming|suppose|imagine|when|while|without|after|before|you|consider|to|on|by|at|of|"
    r"starting|taking|working|drawing|following|through|within|during|under|over|between|among|there|keeping|considering)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,:;]\s+(?:then\s+|and\s+|please\s+)?")


def is_instruction(text: str) -> bool:
    """Whether a text asks for something, by its English words: an imperative, a question or a wish."""
    return any(asks(sentence) for sentence in sentences(text))


def sentences(text: str) -> list[str]:
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]


def asks(sentence: str) -> bool:
    return sentence.rstrip(" \"”')*_`").endswith(("?", "？")) or is_order(sentence) or _is_question(sentence)


def _is_question(sentence: str) -> bool:
    text = OPENING.sub("", sentence, count=1)
    said = words(text)
    return len(said) > 2 and said[0] in ("what", "how", "why", "who", "which", "when", "where") and not _is_clause(said)


def is_order(sentence: str) -> bool:
    text = OPENING.sub("", sentence, count=1)
    said = words(text)
    if not said:
        return False
    if said[0] in VERBS and not (len(said) > 1 and said[1] in ("is", "are", "was", "were", "has", "have", "can", "of")):
        return True
    if WISH.search(_SPEECH.sub(" ", text)) or re.match(r"(?:can|could|would|will) you\b", text, re.IGNORECASE):
        return True
    if _SETTING.match(text):
        return any((start := words(clause)) and start[0] in VERBS for clause in _CLAUSE.split(text)[1:])
    return False


def _is_clause(said: list[str]) -> bool:
    """ "When it comes to …" and "What a discovery" open statements."""
    return (
        said[:3] == ["when", "it", "comes"]
        or said[:2] in (["what", "a"], ["what", "an"])
        or (
            said[0] in ("when", "where")
            and said[1]
            not in (
                "is",
                "are",
                "was",
                "were",
                "do",
                "does",
                "did",
                "can",
                "could",
                "should",
                "will",
                "would",
                "and",
                "has",
                "have",
            )
        )
    )
