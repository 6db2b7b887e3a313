"""Whether what an evolved text adds fits its parent."""

from __future__ import annotations

import re
from collections import Counter

from hf_evol.prompts.forms import only_in, sentences
from hf_evol.prompts.words import STOP_WORDS, words

# What needs something before it to speak of, and what may give it.
_ONE_OF_SEVERAL = re.compile(
    r"(?i)\bwhich (?:one (?:is|of|would|works|should)|of (?:the two|them|these))\b|\bthe two\b(?! \w)|\bthe two (?:of|are|differ)|\b(?:between|of|tell) the two\b|\bthe other one\b"
)
_SEVERAL = re.compile(
    r"(?i)\b(?:two|both|three|four|five|compar\w*|contrast\w*|alternatives?|similar|versions?|ways|different|differ\w*|options?|several|each|"
    r"other|versus|vs|between|list|ideas|examples|advantages|disadvantages|pros|benefits|methods|types|rank)\b"
)
_A_CHANGE = re.compile(r"(?i)\b(?:the|each|every) changes?\b|\b(?:old|new) version\b|\bwhat was already good\b")
_CHANGING = re.compile(
    r"(?i)\b(?:edit|rewrit|rephras|reword|revis|chang|convert|translat|fix|correct|debug|optimi[sz]|refactor|improv|modif|updat|replac|remov|add|simplif|"
    r"shorten|transform|paraphras|proofread|restructur|reformat|insert|delet|turn|complet|sort|arrang|format|expand|summari[sz]|adapt|upgrad|revers|"
    r"capitali[sz])\w*"
)
_READERS = re.compile(
    r"(?i)\b(?:for|to) (?:an?|the|two|twelve) (?:[\w-]+ ){0,3}?(?:class|group|students?|children|child|family|teacher|manager|readers?|beginners?|pupils|"
    r"mother|nurse|worker|driver|couple|company|newspaper)\b"
)
_COUNT = r"(?:\d+(?:[-–]\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|single)[ -]"
_OF_A_PART = re.compile(
    rf"(?i)(?:summary|conclusion|title|example|definition|reason)s? (?:of|in|with) (?:at most )?{_COUNT}(?:short )?\w+"
)
_LENGTH = re.compile(
    rf"(?i)(?<!\w){_COUNT}(?:short |long |simple |different |numbered )?(words?|sentences?|paragraphs?|lines?|points?|pages?)\b"
)


def fits(text: str, parent: str) -> bool:
    """Whether a text speaks of what is there, and doesn't contradict its parent: no "which of the two is better" of one thing, no
    "the change" where nothing is to be changed, no other readers, no other length, no question without words."""
    several = only_in(_ONE_OF_SEVERAL, text, parent)
    if several and not _SEVERAL.search(text[: several.start()]):
        return False
    if only_in(_A_CHANGE, text, parent) and not _CHANGING.search(parent):
        return False
    if 0 < len(_READERS.findall(parent)) < len(_READERS.findall(text)):
        return False
    before, now = _lengths(parent), _lengths(text)
    if any(now[unit] > before[unit] for unit in before):
        return False
    return _opens_with_words(text) or not _opens_with_words(parent)


def _lengths(text: str) -> Counter[str]:
    """How often a length in words, sentences and so on is demanded of the whole."""
    return Counter(found.lower().rstrip("s") for found in _LENGTH.findall(_OF_A_PART.sub("", text)))


def _opens_with_words(text: str) -> bool:
    """Whether the first sentence has more than stop words."""
    return any(not STOP_WORDS.issuperset(words(sentence)) for sentence in sentences(text)[:1])
