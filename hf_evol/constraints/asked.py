"""What code can see of a response's faults: that it breaks a condition which its English instruction sets the whole of it, or repeats
itself. Of the many words in which conditions are put, only the plainest are known, and a size is broken only by far: where there is a
doubt, nothing is found."""

from __future__ import annotations

import re
from collections import Counter

from hf_evol.constraints import counts
from hf_evol.prompts.tables import patterns_of
from hf_evol.prompts.words import domain_of, numbers, words

_FAR = 1.5  # times the size, and
_MORE = {"word": 10, "sentence": 3, "paragraph": 3, "line": 3}  # so many more, or fewer
_AGAIN = 3  # so many items of a list that say what others say; a sentence more often than that
_LEAST_WORDS = {"sentence": 5, "paragraph": 8}
_RE = patterns_of(__file__)
_HOLDS_TEXT = re.compile(r"[:\n][ \t]*\S|[\"“`]")
_CLAUSES = re.compile(r"[,;.!?](?:\s+|\Z)")
_NUMBERED, _BULLET = re.compile(r"(\d{1,3})[.)]\s+(?=\S)"), re.compile(r"[-*•]\s+(?=\S)")


def breaks_condition(instruction: str, response: str) -> bool:
    """Whether the response breaks a size, a number of list items, a table or a closing question that the instruction demands of the
    whole of it. Not found where the instruction holds other texts, or asks for more than one thing."""
    letters = [char for char in response if char.isalpha()]
    is_english = sum(map(str.isascii, letters)) > 0.9 * len(letters)
    if not is_english or domain_of(instruction) == "code" or _HOLDS_TEXT.search(instruction):
        return False
    clauses = [clause for clause in _CLAUSES.split(instruction) if clause.strip()]
    return any(_is_broken(place, clauses, response) for place in range(len(clauses)))


def _is_broken(place: int, clauses: list[str], response: str) -> bool:
    clause, rest = clauses[place], clauses[place + 1 :]
    if place and _RE.question.match(clause):
        return not any(mark in response for mark in "?？؟;")
    if place and _RE.table.match(clause):
        return not re.search(r"(?i)\||\t|<table|\\begin\{|\S {2,}\S", response)
    sized = [_RE.of_the_answer] if place else [_RE.of_a_text, _RE.sized_text, _RE.explained, _RE.of_the_answer]
    found = next(filter(None, (pattern.match(clause) for pattern in sized)), None)
    if found:
        return all(map(_RE.adds_nothing.match, rest)) and _is_far_from(found.groupdict(), response)
    if not place and (found := _RE.items.match(clause)):
        adds_nothing = all(
            _RE.adds_nothing.match(other) or _RE.of_each.search(other) or _RE.question.match(other) for other in rest
        )
        items = _items(response)
        return adds_nothing and len(items) > 1 and len(items) != _number(found["n"])
    return False


def _is_far_from(size: dict[str, str | None], response: str) -> bool:
    unit = size["unit"].lower().rstrip("s")
    count, margin = getattr(counts, f"{unit}s")(response), _MORE[unit]
    least, most = _number(size["n"]), _number(size.get("to") or size["n"])
    if not size.get("most") and count < least / _FAR and least - count >= margin:
        return True
    if unit in _LEAST_WORDS:  # headings, greetings, what abbreviations cut off and the like are none
        parts = counts.paragraph_list(response) if unit == "paragraph" else counts.sentence_list(response)
        count = sum(len(words(part)) >= _LEAST_WORDS[unit] for part in parts)
    return not size.get("least") and count > most * _FAR and count - most >= margin


def _items(response: str) -> list[str]:
    """What the items of a response's only list say; empty where there is none, or where headings, parts of items or further lists may
    stand beside it."""
    lines = [line.rstrip() for line in response.splitlines() if line.strip()]
    for mark in (_NUMBERED, _BULLET):
        listed = [place for place, line in enumerate(lines) if mark.match(line)]
        if listed:
            break
    else:
        return []
    first, last = listed[0], listed[-1]
    is_alone = last - first + 1 == len(listed) and first <= 1 and len(lines) - last <= 2 and not lines[-1].endswith(":")
    if mark is _NUMBERED and [int(mark.match(lines[place])[1]) for place in listed] != list(range(1, len(listed) + 1)):
        return []
    return [mark.sub("", lines[place], count=1).strip(" .*_").casefold() for place in listed] if is_alone else []


def repeats_itself(instruction: str, response: str) -> bool:
    """Whether three items of a list say what others say, or a sentence stands four times; not in code, songs, plans, answers to
    several questions and other texts that may rightly come back to the same."""
    if "```" in response or domain_of(instruction) == "code":
        return False
    if _HOLDS_TEXT.search(instruction) or _RE.rightly_again.search(instruction):
        return False
    items = [item for item in _items(response) if any(map(str.isalpha, item))]
    sentences = Counter(
        said for text in counts.sentence_list(response) if len(said := words(text)) >= _LEAST_WORDS["sentence"]
    )
    return len(items) - len(set(items)) >= _AGAIN or max(sentences.values(), default=0) > _AGAIN


def _number(text: str) -> int:
    return int((numbers(text) or (1,))[0])
