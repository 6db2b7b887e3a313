"""Whether an evolved text asks for something and fits its parent, or talks about the rewriting, or carries the parent out."""

from __future__ import annotations

import re
from collections import Counter

from hf_evol.prompts.patterns import AnyCase
from hf_evol.prompts.words import STOP_WORDS, VERBS, content, numbers, words
from hf_evol.reading.forms import OPENING, OPENS_QUESTION, WISH, asks, is_instruction, is_order, only_in, sentences

_LONGEST_LIST = 600  # characters of the items at a text's end
_MANY_ANSWERS = 2  # statements after the last request

# What texts about the evolving itself say.
META = AnyCase(
    r"\b(?:prompts?|rewrit(?:e|es|ing|ten) (?:of |the |this |task|problem|instruction)|rephrased|original (?:task|question|problem|instruction|one)|"
    r"(?:the|this) (?:given|current|above) (?:task|question|instruction|problem|answer)|(?:the|this) task (?:is|of|was|requires|involves|can)|"
    r"(?:this|the) (?:puzzle|problem) (?:is|requires|involves)|please (?:provide|share|give me|send) (?:the|your|a|me|more)|"
    r"\A\W*ask (?:for|about|the user)|how can i (?:help|assist)|you are (?:asked|given) to (?:rewrite|create))\b"
)
_FIRST_PERSON = re.compile(
    r"(?i)\A\W*(?:i(?:'m|’m|'ll|’ll| am| will| was| have| can| think| would| believe)|let's|let’s|as a|(?:in|for) this (?:task|exercise|example|answer|response), (?:i|we)(?:'ll|’ll| will))\b"
)
_RULE = AnyCase(
    r"\b(?:must|should|include|use|using|avoid|your|you|answer|response|ensure|no more|at least|at most|limit|each|only|not|do not|"
    r"don't|without|make sure|assume|provide|explain|consider|remember|keep)\b"
)
_TELLS_HOW = re.compile(r"(?i)\A\W*(?:to|in order to)\s[^.?!\n]*?,\s*(?:you|we|i|one|use|simply|just|the|it|first)\b")
_SAYS_HOW = re.compile(
    r"(?i)\A\W*how to (?:(?!(?:what|which|who|where|there|that|it|if|whether|when|why|how) )[\w'’-]+ ){1,8}(?:is|are) (?:an?|the|one)\b(?![^.]*\?)"
)
_TELLS = re.compile(
    r"(?i)\A\W*(?:this|it|it's|these|you can|you could|you would|you will|we can|the (?:query|function|code|program|script|answer|"
    r"output|result|solution|key|first|method|algorithm))\b(?![^.]*\?)"
)
_MUST = re.compile(r"(?i)\b(?:must|should|need(?:s)? to|have to|has to|may not|cannot|can't|is to)\b")
_TOLD = re.compile(r"(?i),\s*(?:which|who) (?:is|are|was|were)\b")
_SAYS_WHAT = re.compile(r"(?i)\A\W*(?!you\b|it\b)(?:[\w'’-]+ ){1,5}(?:is|are|stands for|refers? to|means)\b")
_SAYS_ALL = re.compile(r"(?i)\A\W*(?:the|an?)\s(?:[\w'’-]+ ){6,14}(?:is|are) (?:called|named|known|an?|the)\b")
_SAYS_IT = re.compile(r"(?i)\A\W*(?:the|an?|one|here)\s[^.?!\n]*\b(?:is|are|would be):(?:\s|\Z)")
_NUMBERED = re.compile(r"\A[^.?!\n]*:\s*1[.)]\s")
_LISTS = re.compile(
    r"(?is)\A(?>.*?\b(?:list|what are|name|identify|provide|give|discuss|outline|describe)\b).*\b(?:list|skills|benefits|advantages|disadvantages|types|"
    r"examples|ways|tips|reasons|causes|factors|steps|features|effects|uses|ideas|things|challenges|strategies|components|elements|"
    r"characteristics|qualities|symptoms|duties|responsibilities|metrics)\b"
)
_ITEMS = AnyCase(r"(?:including|such as|like|namely)\s++([^.?!]++)[.?!]?\Z")
_OPEN_ITEM = re.compile(
    r"(?i)\b(?:its|their|his|her|how|what|why|when|where|which|who|whether|at least|your|for|that)\b"
)
_LETTER = re.compile(r"(?i)\A\W*(?:dear|hello|hi|subject:)\b")
_ANNOUNCED = re.compile(r"(?i):\s*\Z|\b(?:following|below|given|this|starter|provided)\b")
_MAY_FOLLOW = VERBS | {"first", "what", "how", "why", "the", "a", "who", "when", "where", "which"}  # after a colon
_FENCE = re.compile(r"(?s)```(?:\w*)\n(.*?)\n?```")

# What needs something before it to speak of, and what may give it.
_ONE_OF_SEVERAL = AnyCase(
    r"\bwhich (?:one (?:is|of|would|works|should)|of (?:the two|them|these))\b|\bthe two\b(?! \w)|\bthe two (?:of|are|differ)|\b(?:between|of|tell) the two\b|\bthe other one\b"
)
_SEVERAL = re.compile(
    r"(?i)\b(?:two|both|three|four|five|compar\w*|contrast\w*|alternatives?|similar|versions?|ways|different|differ\w*|options?|several|each|"
    r"other|versus|vs|between|list|ideas|examples|advantages|disadvantages|pros|benefits|methods|types|rank)\b"
)
_A_CHANGE = AnyCase(r"\b(?:the|each|every) changes?\b|\b(?:old|new) version\b|\bwhat was already good\b")
_A_PLACE = AnyCase(r"\breasons? for (?:each|every|its|their) (?:place|position|rank)s?\b")
_RANKING = re.compile(r"(?i)\b(?:rank|order|sort|top|places?|first|list|arrang|posit)")
_FEW_WORDS = AnyCase(
    r"\bin (?:at most|no more than|under|fewer than|less than) (?:\d|1\d|20|five|six|seven|eight|nine|ten|twelve|fifteen|twenty) words\b"
)
_ON_EACH = AnyCase(r"\b(?:for|of|about|to) each\b|, each\b")
_CHANGING = re.compile(
    r"(?i)\b(?:edit|rewrit|rephras|reword|revis|chang|convert|translat|fix|correct|debug|optimi[sz]|refactor|improv|modif|updat|replac|remov|add|simplif|"
    r"shorten|transform|paraphras|proofread|restructur|reformat|insert|delet|turn|complet|sort|arrang|format|expand|summari[sz]|adapt|upgrad|revers|"
    r"capitali[sz])\w*"
)
_READERS = AnyCase(
    r"(?<!question )\b(?:for|to) (?:an?|the|two|twelve) (?:[\w-]+ ){0,3}?(?:class|group|students?|children|child|family|teacher|manager|readers?|beginners?|pupils|"
    r"mother|nurse|worker|driver|couple|company|newspaper|magazine|poster|quiz|page)\b"
)
_COUNT = r"(?:\d+(?:[-–]\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|single)[ -]"
_OF_A_PART = AnyCase(
    rf"(?:summary|conclusion|title|example|definition|reason)s? (?:of|in|with) (?:at most )?{_COUNT}(?:short )?\w+"
)
_LENGTH = AnyCase(
    rf"(?<!\w){_COUNT}(?:short |long |simple |different |numbered )?(words?|sentences?|paragraphs?|lines?|points?|pages?|examples?|headings?)\b"
)

_TABLE = AnyCase(r"\bin a (table)\b")
_SINGLE = AnyCase(r"\b(?:an?|one|single) (?:[\w-]+ )?(sentence|paragraph|verse|line)\b")


def form_fault(text: str, parent: str) -> str | None:
    """What keeps a text from being an instruction at all: ``chatter``, ``answered``, ``not_instruction``; or None."""
    letters = () if parent.isascii() else [char for char in parent if char.isalpha()]
    if letters and sum(char.isascii() for char in letters) / len(letters) <= 0.9:
        return None  # no English
    if only_in(META, text, parent):
        return "chatter"
    if only_in(_FIRST_PERSON, text, parent) and not text.rstrip().endswith("?") and not WISH.search(text):
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
    said, asked = sentences(text), sentences(parent)
    first, last = said[0], said[-1]
    if _TELLS_HOW.match(first) or only_in(_LETTER, text, parent):
        return False
    if only_in(_SAYS_HOW, text, parent):
        return False  # "How to swim is a skill for life."
    if first.endswith("?") and is_order(asked[0]) and not OPENS_QUESTION.match(OPENING.sub("", first, count=1)):
        return False  # "The sea – who owns it?"
    if OPENS_QUESTION.match(first) and ":" in first and "?" not in text and ":" not in parent:
        return False  # "How trees grow: by taking up water."
    if asks(first):
        return True
    if only_in(_SAYS_IT, text, parent) or only_in(_NUMBERED, text, parent):
        return False  # "The capital is: …", "Three ways to save water: 1. Fix the taps."
    if (_SAYS_WHAT.match(first) or _SAYS_ALL.match(first)) and asks(asked[0]) and first not in parent:
        return False  # "A delta is … Explain it."
    if not asks(asked[0]):  # a setting, and what is asked of it
        return any(map(asks, said))
    return is_order(last) if any(map(is_order, asked)) else asks(last)


def _answers_behind(text: str, parent: str) -> bool:
    """Whether an answer follows the task: after the parent's words and a colon, or as statements at the end."""
    head = parent.rstrip(" .!?:\n").lower()
    if len(head) > 8 and ":" not in parent and text.lower().startswith(head):
        after = text[len(head) :].lstrip(" .!?")
        if after.startswith(":") and not _MAY_FOLLOW.issuperset(words(after)[:1]):
            return True
    said = sentences(text)
    if _TELLS.match(said[-1]) and said[-1] not in parent and not _MUST.search(said[-1]):
        return True
    ending = 0
    for sentence in reversed(said):
        if sentence in parent or asks(sentence) or _RULE.search(sentence) or len(words(sentence)) < 4:
            break
        ending += 1
    return ending >= max(_MANY_ANSWERS, len(sentences(parent)))


def _answers_within(text: str, parent: str) -> bool:
    """Whether a part of the answer stands in the task: a clause that says what is, or items of the list that is asked for."""
    if only_in(_TOLD, text, parent):
        return True
    ending = text[-_LONGEST_LIST:]
    found = _ITEMS.search(ending)
    if found is None or _ITEMS.search(parent) or not _LISTS.match(parent):
        return False
    items = ending[slice(*found.span(1))]
    listed = re.split(r",\s*(?:and\s+)?|\s+and\s+", items)
    return len(listed) >= 3 and not _OPEN_ITEM.search(items) and len(items) < len(text) / 1.5


def fits(text: str, parent: str) -> bool:
    """Whether a text speaks of what is there and doesn't contradict its parent: no "which of the two" of one thing, no "the change"
    where nothing is changed, no "each place" where nothing is ranked, no twenty words for something on each of several, no other readers, no other length, no question without words."""
    several = only_in(_ONE_OF_SEVERAL, text, parent)
    if several and not _SEVERAL.search(text[: several.start()]):
        return False
    if only_in(_A_CHANGE, text, parent) and not _CHANGING.search(parent):
        return False
    if only_in(_A_PLACE, text, parent) and not _RANKING.search(_A_PLACE.remove_from(text)):
        return False
    if (
        _FEW_WORDS.search(text)
        and _ON_EACH.search(text)
        and not (_FEW_WORDS.search(parent) and _ON_EACH.search(parent))
    ):
        return False
    if 0 < len(_READERS.findall(parent)) < len(_READERS.findall(text)):
        return False
    before = _lengths(parent)
    now = _lengths(text) if before else before
    if any(now[unit] > before[unit] for unit in before):
        return False
    several = (f"{unit.lower()}s" for unit in _SINGLE.findall(_OF_A_PART.remove_from(parent)))
    if any(units in words(text) and units not in words(parent) for units in several):
        return False  # "a verse …, in three verses"
    is_empty = (STOP_WORDS.issuperset(words("".join(sentences(said)[:1]))) for said in (text, parent))
    return not next(is_empty) or next(is_empty)


def _lengths(text: str) -> Counter[str]:
    """How often a length in words, sentences and so on, or a table, is demanded of the whole."""
    whole = _OF_A_PART.remove_from(text)
    return Counter(unit.lower().rstrip("s") for unit in _LENGTH.findall(whole) + _TABLE.findall(whole))
