"""Whether an evolved text asks for something and fits its parent, or talks about the rewriting, or carries the parent out."""

from __future__ import annotations

import re
from collections import Counter

from hf_evol.prompts.tables import patterns_of
from hf_evol.prompts.words import STOP_WORDS, VERBS, content, numbers, words
from hf_evol.reading.forms import OPENING, OPENS_QUESTION, WISH, asks, is_instruction, is_order, only_in, sentences

_LONGEST_LIST = 600  # characters of the items at a text's end
_MANY_ANSWERS = 2  # statements after the last request

_RE = patterns_of(__file__)
META = _RE.meta
_NUMBERED = re.compile(r"\A[^.?!\n]*:\s*1[.)]\s")
_MAY_FOLLOW = VERBS | {"first", "what", "how", "why", "the", "a", "who", "when", "where", "which"}  # after a colon
_FENCE = re.compile(r"(?s)```(?:\w*)\n(.*?)\n?```")


def form_fault(text: str, parent: str) -> str | None:
    """What keeps a text from being an instruction at all: ``chatter``, ``answered``, ``not_instruction``; or None."""
    letters = () if parent.isascii() else [char for char in parent if char.isalpha()]
    if letters and sum(char.isascii() for char in letters) / len(letters) <= 0.9:
        return None  # no English
    if only_in(META, text, parent):
        return "chatter"
    if only_in(_RE.first_person, text, parent) and not text.rstrip().endswith("?") and not WISH.search(text):
        return "chatter"
    fenced = [code for code in _FENCE.findall(text) if code not in parent]
    if fenced and "```" not in parent and not _RE.announced.search(text.partition("```")[0]):
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
    if _RE.tells_how.match(first) or only_in(_RE.letter, text, parent):
        return False
    if only_in(_RE.says_how, text, parent):
        return False  # "How to swim is a skill for life."
    if first.endswith("?") and is_order(asked[0]) and not OPENS_QUESTION.match(OPENING.sub("", first, count=1)):
        return False  # "The sea – who owns it?"
    if OPENS_QUESTION.match(first) and ":" in first and "?" not in text and ":" not in parent:
        return False  # "How trees grow: by taking up water."
    if asks(first):
        return True
    if only_in(_RE.says_it, text, parent) or only_in(_NUMBERED, text, parent):
        return False  # "The capital is: …", "Three ways to save water: 1. Fix the taps."
    if (_RE.says_what.match(first) or _RE.says_all.match(first)) and asks(asked[0]) and first not in parent:
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
    if _RE.tells.match(said[-1]) and said[-1] not in parent and not _RE.must.search(said[-1]):
        return True
    ending = 0
    for sentence in reversed(said):
        if sentence in parent or asks(sentence) or _RE.rule.search(sentence) or len(words(sentence)) < 4:
            break
        ending += 1
    return ending >= max(_MANY_ANSWERS, len(sentences(parent)))


def _answers_within(text: str, parent: str) -> bool:
    """Whether a part of the answer stands in the task: a clause that says what is, or items of the list that is asked for."""
    if only_in(_RE.told, text, parent):
        return True
    ending = text[-_LONGEST_LIST:]
    found = _RE.items.search(ending)
    if found is None or _RE.items.search(parent) or not _RE.lists.match(parent):
        return False
    items = ending[slice(*found.span(1))]
    listed = re.split(r",\s*(?:and\s+)?|\s+and\s+", items)
    return len(listed) >= 3 and not _RE.open_item.search(items) and len(items) < len(text) / 1.5


def fits(text: str, parent: str) -> bool:
    """Whether a text speaks of what is there and doesn't contradict its parent: no "which of the two" of one thing, no "the change"
    where nothing is changed, no "each place" where nothing is ranked, no twenty words for something on each of several, no other readers, no other length,
    no question without words."""
    several = only_in(_RE.one_of_several, text, parent)
    if several and not _RE.several.search(text[: several.start()]):
        return False
    if only_in(_RE.a_change, text, parent) and not _RE.changing.search(parent):
        return False
    if only_in(_RE.a_place, text, parent) and not _RE.ranking.search(_RE.a_place.remove_from(text)):
        return False
    if _has_few_words_for_each(text) and not _has_few_words_for_each(parent):
        return False
    if 0 < len(_RE.readers.findall(parent)) < len(_RE.readers.findall(text)):
        return False
    before = _lengths(parent)
    now = _lengths(text) if before else before
    if any(now[unit] > before[unit] for unit in before):
        return False
    several = (f"{unit.lower()}s" for unit in _RE.single.findall(_RE.of_a_part.remove_from(parent)))
    if any(units in words(text) and units not in words(parent) for units in several):
        return False  # "a verse …, in three verses"
    is_empty = (STOP_WORDS.issuperset(words("".join(sentences(said)[:1]))) for said in (text, parent))
    return not next(is_empty) or next(is_empty)


def _has_few_words_for_each(text: str) -> bool:
    few = _RE.few_words.search(text)
    return few is not None and _RE.on_each.search(text[few.end() :]) is not None


def _lengths(text: str) -> Counter[str]:
    """How often a length in words, sentences and so on, or a table, is demanded of the whole."""
    whole = _RE.of_a_part.remove_from(text)
    return Counter(unit.lower().rstrip("s") for unit in _RE.length.findall(whole) + _RE.table.findall(whole))
