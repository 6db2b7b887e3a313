"""Worked examples from ``examples.jsonl``, by domain and method, and how well one fits an instruction in form.

An evolved text in depth adds 10 to 20 words (the paper's limit). What it adds fits nearly any instruction of its form, as a model of
a hundred million parameters adds to the next instruction what it has just seen added to another; what does not fit has words of
the example's own subject, by which it can be noticed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from hf_evol.prompts.patterns import AnyCase
from hf_evol.prompts.tables import table_of, unbroken
from hf_evol.prompts.words import SMALL_WORDS, STOP_WORDS, VERB_STEMS, VERBS, domain_of, remembering, stem, words

Pairs = tuple[tuple[str, str], ...]  # (given, evolved)


EXAMPLES: dict[str, dict[str, Pairs]] = {}
for _line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
    _row = json.loads(_line)
    _of_domain = EXAMPLES.setdefault(_row["domain"], {})
    _of_domain[_row["method"]] = (*_of_domain.get(_row["method"], ()), (_row["given"], _row["evolved"]))
_OF_CODE = frozenset(given for pairs in EXAMPLES["code"].values() for given, _ in pairs)

_FORMS = table_of(__file__)
_PARTS = {
    kind: re.compile(rf"(?i)\A\W*(?:please\s+)?(?:given\b[^,]*,\s*)?(?:{unbroken(words)})\b")
    for kind, words in _FORMS["kinds"].items()
}
_PARTS |= {thing: AnyCase(unbroken(words)) for thing, words in _FORMS["things"].items()}
_KINDS_OF_TEXT = frozenset("story dialogue poem portrait prose summary plan letter short".split())
_ABOUT_A_TEXT = {"explain", "list", "classify", "change", "compare", "advise", "find"}  # "Explain the end of the story"
_OF_NO_TEXT = {"one", "importance", "own"}
_HEAD = 12  # words, in which the text to be written is named
_LONG = 16  # words: several things are asked already
_LEAST_STEM = 4  # letters by which forms of one word are known
_ADDS_NOTHING = SMALL_WORDS | {"and", "to"}
_FITS = 0.5
_FITS_ANYTHING = 0.3  # less than an example that begins alike where the instruction names one thing more


def likeness(example: str, instruction: str) -> float:
    """How well an example fits an instruction in form: the share, from 0 to 1, of what makes up their forms that they have in
    common. The form is how a text begins and, with twice the weight, the kinds of thing it names; an example of no such form
    fits anything a little."""
    return in_common(form_of(example), form_of(instruction))


@lru_cache(maxsize=65_536)
def in_common(shown: frozenset[str], asked: frozenset[str]) -> float:
    """The share of what makes up two forms that they have in common, as `likeness` has it."""
    return _weight(shown & asked) / _weight(shown | asked) if shown else _FITS_ANYTHING


def share_of_example(
    text: str, parent: str, prompt: Sequence[Mapping[str, str]], any_form: bool = False
) -> float | None:
    """How much of what a text adds to its parent is what a worked example in its prompt has added: the words that both add, as a
    share of those that one of them adds (Jaccard index), small words apart; the greatest of the examples that fit the parent in form. 0
    where a word of the parent is lost, other than its first verb and small words. In code, where other words often do as well, and
    with ``any_form``, for which all examples fit, it is the share of the words that the text adds; in code, words may be lost, too.
    None where the prompt shows no examples."""
    turns = [turn["content"] for turn in prompt if turn["role"] != "system"][:-1]
    shown = list(zip(turns[::2], turns[1::2], strict=False))
    if not shown:
        return None
    is_free = domain_of(parent) == "code" or not _OF_CODE.isdisjoint(turns[::2])
    if not is_free and _lost(text, parent):
        return 0.0
    added = _added(text, parent)
    fitting = [_by_example(evolved, given) for given, evolved in shown if any_form or likeness(given, parent) >= _FITS]
    return max(
        (len(added & other) / max(1, len(added if is_free or any_form else added | other)) for other in fitting),
        default=0.0,
    )


def _lost(text: str, parent: str) -> bool:
    """Whether the text lacks a word of the parent in any form; one verb at the beginning is as good as another."""
    asked, said = words(parent), words(text)
    opens_alike = VERBS.issuperset((*asked[:1], *said[:1]))
    kept, stems = set(said), set(map(stem, said))
    return any(
        word not in kept and not (_has_forms(word) and stem(word) in stems)
        for word in asked[opens_alike:]
        if word not in SMALL_WORDS
    )


def _has_forms(word: str) -> bool:
    """Whether words of the same stem are forms of this one: "news" is no form of "new", and "not" none of "notes"."""
    return len(stem(word)) >= _LEAST_STEM or ((word in VERBS or stem(word) in VERB_STEMS) and word not in STOP_WORDS)


def _added(text: str, parent: str) -> frozenset[str]:
    said, before = Counter(words(text)), Counter(words(parent))
    return frozenset(word for word, count in said.items() if count > before.get(word, 0)) - _ADDS_NOTHING


_by_example = lru_cache(maxsize=4096)(_added)


@remembering
def form_of(instruction: str) -> frozenset[str]:
    """How an instruction begins, and the kinds of thing it names: kinds and things of ``examples.yaml``, and "long"."""
    head = " ".join(instruction.split()[:_HEAD])
    texts = {part: match.start() for part in _KINDS_OF_TEXT if (match := _PARTS[part].search(head))}
    found = {part for part, pattern in _PARTS.items() if part not in _KINDS_OF_TEXT and pattern.search(instruction)}
    if len(words(instruction)) >= _LONG:
        found.add("long")
    for thing, others in _FORMS["instead"].items():
        if thing in found:
            found.difference_update(others)
    if texts and not found & _ABOUT_A_TEXT:
        found = found - _OF_NO_TEXT | {"create", min(texts, key=lambda part: (texts[part], part))}
    return frozenset(found)


def _weight(form: frozenset[str]) -> int:
    """In whole numbers, whose sum is the same in any order: that of a set differs from process to process."""
    return sum(2 if part in ("given", "question") else 10 if part in _FORMS["things"] else 5 for part in form)
