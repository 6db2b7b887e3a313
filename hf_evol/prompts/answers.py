"""Whether an evolved text asks for something, or talks about the rewriting, or carries its parent out."""

from __future__ import annotations

import re

from hf_evol.prompts.forms import OPENING, OPENS_QUESTION, WISH, asks, is_instruction, is_order, sentences
from hf_evol.prompts.words import VERBS, content, numbers, words

_LONGEST_LIST = 600  # characters of the items at a text's end
_MANY_ANSWERS = 2  # statements after the last request

# What texts about the evolving itself say.
META = re.compile(
    r"\b(?:prompts?|rewrit(?:e|es|ing|ten) (?:of |the |this |task|problem|instruction)|rephrased|original (?:task|question|problem|instruction|one)|"
    r"(?:the|this) (?:given|current|above) (?:task|question|instruction|problem|answer)|(?:the|this) task (?:is|of|was|requires|involves|can)|"
    r"(?:this|the) (?:puzzle|problem) (?:is|requires|involves)|please (?:provide|share|give me|send) (?:the|your|a|me|more)|"
    r"\A\W*ask (?:for|about|the user)|how can i (?:help|assist)|you are (?:asked|given) to (?:rewrite|create))\b",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(
    r"\A\W*(?:i(?:'m|’m|'ll|’ll| am| will| was| have| can| think| would| believe)|let's|let’s|as a)\b", re.IGNORECASE
)
_RULE = re.compile(
    r"\b(?:must|should|include|use|using|avoid|your|you|answer|response|ensure|no more|at least|at most|limit|each|only|not|do not|"
    r"don't|without|make sure|assume|provide|explain|consider|remember|keep)\b",
    re.IGNORECASE,
)
_TELLS_HOW = re.compile(
    r"\A\W*(?:to|in order to)\s[^.?!\n]*?,\s*(?:you|we|i|one|use|simply|just|the|it|first)\b", re.IGNORECASE
)
_TELLS = re.compile(
    r"\A\W*(?:this|it|it's|these|you can|you could|you would|you will|we can|the (?:query|function|code|program|script|answer|"
    r"output|result|solution|key|first|method|algorithm))\b(?![^.]*\?)",
    re.IGNORECASE,
)
_MUST = re.compile(r"\b(?:must|should|need(?:s)? to|have to|has to|may not|cannot|can't|is to)\b", re.IGNORECASE)
_TOLD = re.compile(r",\s*(?:which|who) (?:is|are|was|were)\b", re.IGNORECASE)
_SAYS_WHAT = re.compile(r"\A\W*(?!you\b|it\b)(?:[\w'’-]+ ){1,5}(?:is|are|stands for|refers? to|means)\b", re.IGNORECASE)
_SAYS_ALL = re.compile(
    r"\A\W*(?:the|an?)\s(?:[\w'’-]+ ){6,14}(?:is|are) (?:called|named|known|an?|the)\b", re.IGNORECASE
)
_SAYS_IT = re.compile(r"\A\W*(?:the|an?|one|here)\s[^.?!\n]*\b(?:is|are|would be):(?:\s|\Z)", re.IGNORECASE)
_LISTS = re.compile(
    r"\b(?:list|what are|name|identify|provide|give|discuss|outline|describe)\b.*\b(?:list|skills|benefits|advantages|disadvantages|types|"
    r"examples|ways|tips|reasons|causes|factors|steps|features|effects|uses|ideas|things|challenges|strategies|components|elements|"
    r"characteristics|qualities|symptoms|duties|responsibilities|metrics)\b",
    re.IGNORECASE | re.DOTALL,
)
_ITEMS = re.compile(r"[,:]?\s*(?:including|such as|like|namely)\s+([^.?!]+)[.?!]?\Z", re.IGNORECASE)
_OPEN_ITEM = re.compile(
    r"\b(?:its|their|his|her|how|what|why|when|where|which|who|whether|at least|your|for|that)\b", re.IGNORECASE
)
_LETTER = re.compile(r"\A\W*(?:dear|hello|hi|subject:)\b", re.IGNORECASE)
_ANNOUNCED = re.compile(r":\s*\Z|\b(?:following|below|given|this|starter|provided)\b", re.IGNORECASE)
_FENCE = re.compile(r"```(?:\w*)\n(.*?)\n?```", re.DOTALL)


def form_fault(text: str, parent: str) -> str | None:
    """What keeps a text from being an instruction at all: ``chatter``, ``answered``, ``not_instruction``; or None."""
    if not _is_english(parent):
        return None
    if META.search(text) and not META.search(parent):
        return "chatter"
    if (
        _FIRST_PERSON.match(text)
        and not _FIRST_PERSON.match(parent)
        and not text.rstrip().endswith("?")
        and not WISH.search(text)
    ):
        return "chatter"
    fenced = [code for code in _FENCE.findall(text) if code not in parent]
    if fenced and "```" not in parent and not _ANNOUNCED.search(text.partition("```")[0]):
        return "answered"
    if is_instruction(parent) and not _takes_the_form(text, parent):
        overlap = set(content(text)) & set(content(parent))
        return "answered" if len(overlap) >= 2 or numbers(text) else "not_instruction"
    if _answers_behind(text, parent) or _answers_within(text, parent):
        return "answered"
    return None


def _takes_the_form(text: str, parent: str) -> bool:
    """Whether the first sentence asks, or the last one does in the parent's way, after a setting."""
    said = sentences(text)
    first, last = said[0], said[-1]
    if _TELLS_HOW.match(first) or (_LETTER.match(text) and not _LETTER.match(parent)):
        return False
    if (
        first.endswith("?")
        and is_order(sentences(parent)[0])
        and not OPENS_QUESTION.match(OPENING.sub("", first, count=1))
    ):
        return False  # "The sea – who owns it?"
    if OPENS_QUESTION.match(first) and ":" in first and "?" not in text and ":" not in parent:
        return False  # "How trees grow: by taking up water."
    if asks(first):
        return True
    if _SAYS_IT.match(text) and not _SAYS_IT.match(parent):
        return False  # "The capital is: …"
    if (_SAYS_WHAT.match(first) or _SAYS_ALL.match(first)) and asks(sentences(parent)[0]) and first not in parent:
        return False  # "A delta is … Explain it."
    if not asks(sentences(parent)[0]):  # a setting, and what is asked of it
        return any(map(asks, said))
    return is_order(last) if any(map(is_order, sentences(parent))) else asks(last)


def _answers_behind(text: str, parent: str) -> bool:
    """Whether an answer follows the task: after the parent's words and a colon, or as statements at the end."""
    head = parent.rstrip(" .!?:\n").lower()
    if len(head) > 8 and ":" not in parent and text.lower().startswith(head):
        after = text[len(head) :].lstrip(" .!?")
        if (
            after.startswith(":")
            and words(after)[:1]
            and words(after)[0]
            not in VERBS | {"first", "what", "how", "why", "the", "a", "who", "when", "where", "which"}
        ):
            return True
    last = sentences(text)[-1]
    if _TELLS.match(last) and last not in parent and not _MUST.search(last):
        return True
    ending = 0
    for sentence in reversed(sentences(text)):
        if asks(sentence) or _RULE.search(sentence) or sentence in parent or len(words(sentence)) < 4:
            break
        ending += 1
    return ending >= _MANY_ANSWERS and ending > len(sentences(parent)) - 1


def _answers_within(text: str, parent: str) -> bool:
    """Whether a part of the answer stands in the task: a clause that says what is, or the items of the list that is asked for."""
    if _TOLD.search(text) and not _TOLD.search(parent):
        return True
    items = _ITEMS.search(text[-_LONGEST_LIST:])
    if items is None or _ITEMS.search(parent) or not _LISTS.search(parent):
        return False
    listed = re.split(r",\s*(?:and\s+)?|\s+and\s+", items[1])
    return len(listed) >= 3 and not _OPEN_ITEM.search(items[1]) and len(items[1]) < len(text) / 1.5


def _is_english(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return not letters or sum(char.isascii() for char in letters) / len(letters) > 0.9
