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
from hf_evol.prompts.words import words

Pairs = tuple[tuple[str, str], ...]  # (given, evolved)


EXAMPLES: dict[str, dict[str, Pairs]] = {}
for _line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
    _row = json.loads(_line)
    _of_domain = EXAMPLES.setdefault(_row["domain"], {})
    _of_domain[_row["method"]] = (*_of_domain.get(_row["method"], ()), (_row["given"], _row["evolved"]))

_KINDS = {
    "explain": r"explain|describe|discuss|define|outline|analy[sz]e|illustrate|clarify|what|why|who|when|where|summari[sz]e|elaborate|state|tell",
    "list": r"list|name|give|suggest|provide|identify|brainstorm|recommend|enumerate|mention|propose|(?:\w+\s){1,3}(?:list|examples?|ideas|types|kinds) of",
    "one": r"(?:name|give|suggest|provide|identify|recommend|mention|propose|offer)(?: me)? (?:an?|one|the)\b(?! (?:\w+ )?(?:list|few|couple|number|set|"
    r"series|steps|tips|reasons|examples|ways))",
    "advise": r"(?:how (?:can|do|does|should|could|would|to)|what (?:can|should|are (?:the|some) (?:best )?(?:ways|steps|tips))|(?:\w+\s){1,4}(?:steps|tips|advice|ways|strateg(?:y|ies))\b)",
    "create": r"create|design|develop|make|generate|synthesi[sz]e|write|compose|construct|build|plan|invent|produce|come up|formulate|prepare|draft|implement|set up",
    "find": r"find|look up|search|research|locate",
    "change": r"classify|edit|rewrite|convert|translate|correct|sort|arrange|calculate|change|replace|transform|paraphrase|add|insert|rank|reword|"
    r"categori[sz]e|match|predict|determine|detect|evaluate|rate|fix|debug|optimi[sz]e|refactor|modify|identify|simplify|restructure|turn|compute|"
    r"revise|proofread|rephrase|shorten|improve|expand|solve|fill|remove|delete|update|suggest a (?:change|modification)|unscramble|complete|count|what does",
    "compare": r"compare|contrast|differentiate|distinguish|which|(?:\w+\s){1,4}differences?",
}
_THINGS = {
    "given": r"\b(?:following|given|this|these|below|above|provided)\b(?! (?:way|number|range|string|list|array|date|integer|element|letter|word|character|substring|key|value|input|text)\b)|:\s*\n|:\s*\S+$",
    "sql": r"\b(?:sql|mysql|query|queries|database)\b",
    "table": r"\b(?:create|design|make|define)\b.{0,30}\b(?:table|database|schema)\b",
    "page": r"\b(?:html|web ?(?:page|site)|bootstrap)\b",
    "css": r"\b(?:css|selectors?|stylesheet)\b",
    "class": r"\bclass\b",
    "regex": r"\b(?:regex|regular expressions?)\b",
    "argument": r"\b(?:takes?|accepts?|arguments?|parameters?|(?:that|which|to|for) (?:check|convert|revers|sort|find|count|remov|calculat|return|swap)(?:s|es|e|ing)?|"
    r"in an? (?:array|string|list))\b",
    "word": r"\b(?:synonyms?|antonyms?)\b|\bfind\b.{0,30}\bsentence\b",
    "story": r"\b(?:story|stories|narrative|tale|fable|scene|dialogue|conversation|novel|monologue)\b",
    "poem": r"\b(?:poem|haiku|sonnet|limerick|verse|lyrics|song|rap|tune|ballad|ode)\b",
    "portrait": r"\b(?:description|biography|brochure|profile|portrait)\b",
    "prose": r"\b(?:essay|article|post|speech|review|report|paragraphs?|blog|proposal|commentary)\b",
    "letter": r"\b(?:letter|e-?mail|note|invitation|message|memo)\b",
    "short": r"\b(?:slogans?|headlines?|taglines?|tweets?|captions?|titles?|names? for|jokes?|riddles?|jingle)\b",
}
# What says more of the form than others that stand in the same words.
_INSTEAD = {
    "table": {"sql", "argument"},
    "sql": {"argument", "short"},
    "page": {"argument", "css"},
    "css": {"argument"},
    "regex": {"argument"},
    "one": {"list"},
    "advise": {"explain", "list", "one"},  # "Describe the steps to bake bread" is no description
}
_PARTS = {kind: re.compile(rf"(?i)\A\W*(?:please\s+)?(?:{words})\b") for kind, words in _KINDS.items()}
_PARTS |= {thing: AnyCase(words) for thing, words in _THINGS.items()}
_KINDS_OF_TEXT = frozenset(("story", "poem", "portrait", "prose", "letter", "short"))
_HEAD = 12  # words, in which the text to be written is named
_LONG = 16  # words: several things are asked already
_FITS = 0.5
_FITS_ANYTHING = 0.3  # less than an example that begins alike where the instruction names one thing more


def likeness(example: str, instruction: str) -> float:
    """How well an example fits an instruction in form: the share, from 0 to 1, of what makes up their forms that they have in
    common. The form is how a text begins and, with twice the weight, the kinds of thing it names; an example of no such form
    fits anything a little."""
    return in_common(form_of(example), form_of(instruction))


@lru_cache(maxsize=65_536)
def in_common(shown: frozenset[str], asked: frozenset[str]) -> float:
    return _weight(shown & asked) / _weight(shown | asked) if shown else _FITS_ANYTHING


def share_of_example(
    text: str, parent: str, prompt: Sequence[Mapping[str, str]], any_form: bool = False
) -> float | None:
    """Of the words that a text adds to its parent, the share that one of the worked examples in its prompt has added, too: the
    greatest of these shares, of examples that fit the parent in form, or of all with ``any_form``; None where the prompt shows none."""
    turns = [turn["content"] for turn in prompt if turn["role"] != "system"][:-1]
    shown = list(zip(turns[::2], turns[1::2], strict=False))
    fitting = [_added(evolved, given) for given, evolved in shown if any_form or likeness(given, parent) >= _FITS]
    added = _added(text, parent)
    share = max((len(added & of_example) / max(1, len(added)) for of_example in fitting), default=0.0)
    return share if shown else None


@lru_cache(maxsize=4096)
def _added(text: str, parent: str) -> frozenset[str]:
    said, before = Counter(words(text)), Counter(words(parent))
    return frozenset(word for word, count in said.items() if count > before.get(word, 0)) - {
        "the",
        "a",
        "and",
        "of",
        "in",
        "it",
        "to",
        "that",
        "is",
    }


@lru_cache(maxsize=4096)
def form_of(instruction: str) -> frozenset[str]:
    head = " ".join(instruction.split()[:_HEAD])
    found = {
        part for part, pattern in _PARTS.items() if pattern.search(head if part in _KINDS_OF_TEXT else instruction)
    }
    if len(words(instruction)) >= _LONG:
        found.add("long")
    for thing, others in _INSTEAD.items():
        if thing in found:
            found -= others
    return frozenset(found)


def _weight(form: frozenset[str]) -> float:
    return sum(0.4 if part == "given" else 2 if part in _THINGS else 1 for part in form)
