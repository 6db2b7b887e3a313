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
from hf_evol.prompts.words import SMALL_WORDS, STOP_WORDS, VERB_STEMS, VERBS, domain_of, remembering, stem, words

Pairs = tuple[tuple[str, str], ...]  # (given, evolved)


EXAMPLES: dict[str, dict[str, Pairs]] = {}
for _line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines():
    _row = json.loads(_line)
    _of_domain = EXAMPLES.setdefault(_row["domain"], {})
    _of_domain[_row["method"]] = (*_of_domain.get(_row["method"], ()), (_row["given"], _row["evolved"]))
_OF_CODE = frozenset(given for pairs in EXAMPLES["code"].values() for given, _ in pairs)

_KINDS = {
    "explain": r"explain|describe|discuss|define|outline|analy[sz]e|illustrate|clarify|what|why|who|when|where|how (?:does|do|did|is|are|was|were)|elaborate|state|tell|comment|"
    r"interpret|characteri[sz]e|reflect|examine|assess|perform an? (?:\w+ )?analysis",
    "list": r"list|name|give|suggest|provide|identify|brainstorm|recommend|enumerate|mention|propose|(?:\w+\s){1,4}(?:list of|examples of|types of|kinds of|ideas|questions)|"
    r"(?:\w+\s){1,4}(?:\d+|two|three|four|five|ten)\s(?:\w+\s){0,2}(?:advantages|disadvantages|benefits|reasons|facts|puns|topics|activities|names)",
    "one": r"(?:name|give|suggest|provide|identify|recommend|mention|propose|offer)(?: me)? (?:(?:an?|one)\b(?! (?:\w+ )?(?:list|few|couple|number|set|"
    r"series)\b)|the\b(?! (?:\w+ )?(?:list|two|three|four|five|\d+|steps|[a-z]+[^is\W]s)\b))",
    "advise": r"(?:how (?:can|should|could|would|to|do (?:you|i|we|people))|what (?:can|should|are (?:the|some) (?:best )?(?:ways|steps|tips))|(?:\w+\s){1,2}how to|"
    r"(?:\w+\s){1,4}(?:steps|process|tips|advice|ways|strategies)\b)",
    "create": r"tell(?: \w+){0,2} an? (?:\w+ ){0,2}(?:story|tale|fable|joke|riddle)|summari[sz]e|create|design|develop|make|generate|synthesi[sz]e|write|compose|construct|build|plan|invent|produce|come up|formulate|prepare|draft|implement|set up",
    "find": r"find|look up|search|research|locate",
    "classify": r"classify|categori[sz]e|label",
    "change": r"edit|rewrite|convert|translate|correct|sort|arrange|calculate|change|replace|transform|paraphrase|add|insert|rank|reword|"
    r"match|predict|determine|detect|evaluate|rate|fix|debug|optimi[sz]e|refactor|modify|"
    r"identify(?=.*\b(?:given|following|this|these|below|sentence|text|syntax|error)\b)|simplify|restructure|turn|compute|"
    r"revise|proofread|rephrase|shorten|improve|expand|solve|fill|remove|delete|update|suggest a (?:change|modification)|unscramble|complete|count|what does",
    "compare": r"compare|contrast|differentiate|distinguish|which|(?:\w+\s){1,5}(?:differences?|similarities|comparison)",
}
_THINGS = {
    "given": r"\b(?:following|given|this|these|below|above|provided)\b(?! (?:way|number|range|string|list|array|date|integer|element|letter|word|character|substring|key|value|input|text)\b)|:\s*\n|:\s*\S+$",
    "sql": r"\b(?:sql|mysql|query|queries|database)\b",
    "table": r"\b(?:create|design|make|define)\b.{0,30}\b(?:table|database|schema)\b",
    "page": r"\b(?:html|web ?(?:page|site)|bootstrap)\b",
    "css": r"\b(?:css|selectors?|stylesheet)\b",
    "class": r"\bclass\b(?! of)",
    "regex": r"\b(?:regex|regular expressions?)\b",
    "argument": r"\b(?:takes?(?! place)|accepts?|arguments?(?! (?:for|against|in favou?r|on|about))|parameters?|(?:that|which|to|for) (?:check|convert|revers|sort|find|count|remov|calculat|return|swap)(?:s|es|e|ing)?|"
    r"in an? (?:array|string|list))\b",
    "word": r"\b(?:synonyms?|antonyms?)\b|\bfind\b.{0,30}\bsentence\b",
    "question": r"\A\W*(?:in )?(?:what|why|who|when|where|which|how)\b(?! to\b)",
    "importance": r"\A\W*(?<!['’\"-])(?:[\w'’\"-]+\s){1,9}(?:(?<!most )important|importance|significance)\b",
    "own": r"\b(?:your(?! own words)|you (?:have|had|would|recently|just|did|were))\b|\ba time\b",
    "story": r"\b(?:story|stories|narrative|tale|fable|scene|novel|monologue|prologue|anecdote)\b",
    "dialogue": r"\b(?:dialogue|conversation|interview|skit|script(?! (?:to|that|in)\b))\b",
    "poem": r"\b(?:poem|haiku|sonnet|limerick|verse|lyrics|song(?! title)|rap|tune|ballad|ode)\b",
    "portrait": r"\b(?:description|biography|brochure|profile|portrait)\b",
    "prose": r"\b(?:essay|article|post|speech|review|report|paragraphs?|blog|proposal|commentary|analysis|explanation|"
    r"account of|passage|case study|critique|pitch|argument (?:for|against|in favou?r|on|about)|opinion|overview)\b",
    "summary": r"\b(?:summar(?:y|ies|i[sz]e)|synopsis)\b",
    "plan": r"\b(?:plan|strategy|policy|schedule|itinerary|campaign|routine|curriculum|agenda|checklist|guide|budget|tutorial|directions|instructions|recipe|"
    r"menu|outline|timeline|activity|lesson|program(?:me)? for)\b",
    "letter": r"\b(?:letter|e-?mail|note|invitation|message|memo)\b",
    "short": r"\b(?:slogans?|headlines?|taglines?|tweets?|captions?|titles?|names? for|jokes?|riddles?|jingle|analogy|metaphor|motto|"
    r"quotes?|sentences? (?:using|with|about))\b",
}
# What says more of the form than others that stand in the same words.
_INSTEAD = {
    "table": {"sql", "argument"},
    "sql": {"argument", "short"},
    "page": {"argument", "css"},
    "css": {"argument"},
    "regex": {"argument"},
    "one": {"list"},
    "create": {"explain"},
    "advise": set("explain list one create argument importance own".split()),  # "Describe the steps to bake bread"
    "compare": {"list", "one", "create"},
    "list": {"create", "importance"},
    "change": {"list", "one"},
    "long": {"importance", "own", "question"},
}
_PARTS = {
    kind: re.compile(rf"(?i)\A\W*(?:please\s+)?(?:given\b[^,]*,\s*)?(?:{words})\b") for kind, words in _KINDS.items()
}
_PARTS |= {thing: AnyCase(words) for thing, words in _THINGS.items()}
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
    """How an instruction begins, and the kinds of thing it names: keys of `_KINDS` and `_THINGS`, and "long"."""
    head = " ".join(instruction.split()[:_HEAD])
    texts = {part: match.start() for part in _KINDS_OF_TEXT if (match := _PARTS[part].search(head))}
    found = {part for part, pattern in _PARTS.items() if part not in _KINDS_OF_TEXT and pattern.search(instruction)}
    if len(words(instruction)) >= _LONG:
        found.add("long")
    for thing, others in _INSTEAD.items():
        if thing in found:
            found -= others
    if texts and not found & _ABOUT_A_TEXT:
        found = found - _OF_NO_TEXT | {"create", min(texts, key=lambda part: (texts[part], part))}
    return frozenset(found)


def _weight(form: frozenset[str]) -> int:
    """In whole numbers, whose sum is the same in any order: that of a set differs from process to process."""
    return sum(2 if part in ("given", "question") else 10 if part in _THINGS else 5 for part in form)
