"""What is wrong with an evolved text: the rules behind `hf_evol.read_evolved`, with their thresholds at the top."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hf_evol.columns import OK
from hf_evol.prompts.answers import META, form_fault
from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.forms import sentences
from hf_evol.prompts.words import (
    MAIN_LANGUAGES,
    PORTABLE,
    STOP_WORDS,
    VERBS,
    content,
    domain_of,
    languages,
    numbers,
    stem,
    words,
)

_MIN_GAIN = 2.5  # in new content words; a number or a quoted name counts twice, a word more than the parent has a half
# Of the parent's content words, in in-depth methods.
_MIN_KEPT = {"general": 0.7, "writing": 0.7, "code": 0.7, "math": 0.7}
_MAY_GO = 1  # of them, of three or more; in general and writing however few there are, and one more where they are made concrete
_MAX_SHARED = 0.7  # of the parent's content words, in a new task
_A_QUANTITY = 10  # smaller whole figures may well come back
_MIN_GROWTH_OF_MATH = 3  # words; a problem that is no longer has gained a changed name at most
_MOST_OF_A_WORD = 2  # times that a content word may come more often than in the parent
_FEW_WORDS = 3  # content words of a parent that may all come back in a new task
_MIN_DISTINCT = 0.45  # of the words of a longer text
_SHARED_RUN = 4  # words in a row that only the prompt can have given

_REFUSAL = re.compile(
    r"\s*(?:i['’]?m (?:very |so |really )?sorry|i am sorry|sorry,|i apologi[sz]e|my apologies|unfortunately,? i (?:can|am)|"
    r"i (?:can(?:no|['’])t|am unable to|am not able to|won['’]t) (?:\w+ ){0,3}(?:assist|help|comply|fulfil+|provide|rewrite|create)|"
    r"as an ai\b)",
    re.IGNORECASE,
)
_WORKING = re.compile(
    r"\d\s*[=≈]|=\s*[-$€£]?\d|####|<<|\bthe answer is\b|\btherefore\b|\bthus\b|\\boxed", re.IGNORECASE
)
_QUANTITIES = re.compile(r"\bhow (?:many|much)\b", re.IGNORECASE)
_TWICE = re.compile(r"\b(\w{3,})(?:,? and |, )(?:an? |the )?\1\b")
_FROM_ITSELF = re.compile(r"\bfrom (\w.{2,40}?) to \1\b", re.IGNORECASE)
# Words in what was added that need something before them to speak of, and what may give it.
_ONE_OF_SEVERAL = re.compile(
    r"\bwhich (?:one (?:is|of|would|works|should)|of (?:the two|them|these))\b|\bthe two\b(?! \w)|\bthe two (?:of|are|differ)|\b(?:between|of|tell) the two\b|\bthe other one\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    r"\b(?:two|both|three|four|five|compar\w*|contrast\w*|alternatives?|similar|versions?|ways|different|differ\w*|options?|several|each|"
    r"other|versus|vs|between|list|ideas|examples|advantages|disadvantages|pros|benefits|methods|types|rank)\b",
    re.IGNORECASE,
)
_A_CHANGE = re.compile(
    r"\b(?:the|each|every) changes?\b|\b(?:old|new) version\b|\bwhat was already good\b", re.IGNORECASE
)
_CHANGING = re.compile(
    r"\b(?:edit|rewrit|rephras|reword|revis|chang|convert|translat|fix|correct|debug|optimi[sz]|refactor|improv|modif|updat|replac|remov|add|simplif|"
    r"shorten|transform|paraphras|proofread|restructur|reformat|insert|delet|turn|complet|sort|arrang|format|expand|summari[sz]|adapt|upgrad|revers|"
    r"capitali[sz])\w*",
    re.IGNORECASE,
)
_READERS = re.compile(
    r"\b(?:for|to) (?:an?|the|two|twelve) (?:[\w-]+ ){0,3}?(?:class|group|students?|children|child|family|teacher|manager|readers?|beginners?|pupils|"
    r"mother|nurse|worker|driver|couple|company|newspaper)\b",
    re.IGNORECASE,
)
_PARTS = r"(?:summary|conclusion|title|example|definition|reason)s? (?:of|in|with) (?:at most )?"
_COUNT = r"(?:\d+(?:[-–]\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|single)[ -]"
_LENGTH = re.compile(
    rf"(?<!\w){_COUNT}(?:short |long |simple |different |numbered )?(words?|sentences?|paragraphs?|lines?|points?|pages?)\b",
    re.IGNORECASE,
)
_TELLS_OF = re.compile(r"\A\W*(?:please )?(?:explain|describe|outline)\b", re.IGNORECASE)
_NAME = re.compile(r"(?<=[\w,] )[A-Z]\w+|[\"“][^\"“”\n]{2,60}[\"”]")
_THAN = re.compile(r"\bthan (?:an? |the )?((?:[\w-]+ ){0,2}[\w-]+)(?=[ ,.;?!]|\Z)", re.IGNORECASE)
_BY_MEANS = re.compile(r"\b(?:using|without|with the help of)\s((?:[^\s.,;:?!]+[ ]?){1,4})", re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether a reply begins the way refusals do."""
    return bool(_REFUSAL.match(text))


def status_of(text: str, parent: str, prompt: Sequence[dict[str, str]], method: str | None, finish_reason: str) -> str:
    """The status of the text that was found in a reply; arguments as of `hf_evol.read_evolved`."""
    if is_refusal(text) and not is_refusal(parent):
        return "refusal"
    if finish_reason == "length":
        return "cut_off"
    if _squeeze(text) == _squeeze(parent):
        return "unchanged"
    domain = domain_of(parent)
    if domain == "math" and _WORKING.search(text) and not _WORKING.search(parent):
        return "answered"
    if _is_broken(text, parent, method == "breadth"):
        return "broken"
    new = [
        word
        for word in content(text.partition(" ")[2] if words(text)[:1] and words(text)[0] in VERBS else text)
        if word not in set(content(parent))
    ]
    if _leaks(text, parent, prompt, new if domain != "math" else []):  # everyday things are in all math problems
        return "leak"
    if (fault := form_fault(text, parent)) is not None:
        return fault
    if method != "breadth" and (fault := _task_fault(text, parent, domain, method == "concretize")) is not None:
        return fault
    own = {word for word in content(parent) if word not in _STEMMED_VERBS}
    if method == "breadth" and len(own) >= _FEW_WORDS and len(own & set(content(text))) >= _MAX_SHARED * len(own):
        return "near_copy"  # the same task still
    gain = _gain(text, parent, new, keeps_task=method != "breadth")
    if domain == "math" and method != "breadth" and len(words(text)) < len(words(parent)) + _MIN_GROWTH_OF_MATH:
        return "near_copy"
    return OK if gain >= _MIN_GAIN else "near_copy"


def _is_broken(text: str, parent: str, is_new: bool) -> bool:
    """Whether words come back as in texts of models that are stuck, or a quantity of the parent is said once more."""
    said, before = words(text), words(parent)
    usual = _runs(before)
    if any(len(set(run)) == 1 and run not in usual for run in _runs(said)):
        return True
    if any(count > max(1, usual[run]) and _says(run, 2 if run in usual else 1) for run, count in _runs(said).items()):
        return True
    own, now = Counter(content(parent)), Counter(content(text))
    most = _MOST_OF_A_WORD + (is_new or domain_of(text) == "math")
    if any(count - own[word] > most for word, count in now.items()):
        return True
    if any(other not in before for other in _TWICE.findall(text.lower())) or _FROM_ITSELF.search(text):
        return True
    pairs = Counter(pair for pair in pairwise(said) if not STOP_WORDS.intersection(pair))
    known = set(pairwise(before))
    if domain_of(text) != "math" and any(count > 1 and pair not in known for pair, count in pairs.items()):
        return True
    if any(
        set(content(other[1])) <= set(own) for other in _THAN.finditer(text) if content(other[1])
    ) and not _THAN.search(parent):
        return True  # "sort them by bubble sort, and explain why it is faster than bubble sort"
    if _does_not_fit(text, parent):
        return True
    figures, given = Counter(numbers(text)), Counter(numbers(parent))
    if any(count > given[figure] > 0 and (figure >= _A_QUANTITY or figure % 1) for figure, count in figures.items()):
        return True
    fewest = min(_MIN_DISTINCT, 0.9 * len(set(before)) / max(1, len(before)))
    return len(said) >= 20 and len(set(said)) / len(said) < fewest


def _does_not_fit(text: str, parent: str) -> bool:
    """Whether what was added speaks of what isn't there, or contradicts the parent: "which of the two is better" of one thing, "the
    change" where nothing is to be changed, other readers, another length, a question without words."""
    several, change = _ONE_OF_SEVERAL.search(text), _A_CHANGE.search(text)
    if several and not _ONE_OF_SEVERAL.search(parent) and not _SEVERAL.search(text[: several.start()]):
        return True
    if change and not _A_CHANGE.search(parent) and not _CHANGING.search(parent):
        return True
    if 0 < len(_READERS.findall(parent)) < len(_READERS.findall(text)):
        return True
    before, now = _lengths(parent), _lengths(text)
    if any(count > before[unit] > 0 for unit, count in now.items()):
        return True
    return not _says_much(_first_sentence(text)) and _says_much(_first_sentence(parent))


def _lengths(text: str) -> Counter[str]:
    """How often a length in words, sentences and so on is demanded of the whole."""
    whole = re.sub(rf"{_PARTS}{_COUNT}(?:short )?\w+", "", text, flags=re.IGNORECASE)
    return Counter(found.lower().rstrip("s") for found in _LENGTH.findall(whole))


def _first_sentence(text: str) -> str:
    return next(iter(sentences(text)), "")


def _says_much(sentence: str) -> bool:
    return any(word not in STOP_WORDS for word in words(sentence))


def _runs(said: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(zip(said, said[1:], said[2:], said[3:], strict=False))


def _says(run: tuple[str, ...], least: int) -> bool:
    return sum(word not in STOP_WORDS for word in run) >= least


def _leaks(text: str, parent: str, prompt: Sequence[dict[str, str]], new: list[str]) -> bool:
    """Whether the text has words that only the prompt can have given: a run of them, or most of what is new."""
    parent_words = words(parent)
    known = {tuple(parent_words[i : i + _SHARED_RUN]) for i in range(len(parent_words))}
    own = set(content(parent))
    shown: set[str] = set()
    topics: set[str] = set()
    said = words(text)
    runs = {tuple(said[i : i + _SHARED_RUN]) for i in range(len(said) - _SHARED_RUN + 1)}
    for place, turn in enumerate(prompt):
        told = turn["content"]
        if told in _FITTING:
            continue
        if place == len(prompt) - 1:
            told = told.replace(parent, "\n", 1) if parent else told
        pieces = words(told)
        for i in range(len(pieces) - _SHARED_RUN + 1):
            run = tuple(pieces[i : i + _SHARED_RUN])
            if (
                run in runs
                and run not in known
                and any(
                    not word[0].isdigit() and word not in own | _PORTABLE_STEMS | _STEMMED_VERBS
                    for word in _content_of(run)
                )
            ):
                return True
        shown.update(content(told))
        if turn["role"] == "user" and place < len(prompt) - 1:
            topics.update(word for word in content(told) if word not in _STEMMED_VERBS)
    leaked = [
        word
        for word in dict.fromkeys(new)
        if word in shown and word not in _STEMMED_VERBS | _PORTABLE_STEMS and not word[0].isdigit()
    ]
    if leaked and ((META.search(text) and not META.search(parent)) or _OF_PROMPTS.intersection(leaked)):
        return True
    distinct = len(set(new))
    return bool(
        any(word in topics for word in leaked)
        or (len(leaked) >= 2 and 2 * len(leaked) >= distinct)
        or (leaked and len(leaked) == distinct and distinct <= 2)
    )


_STEMMED_VERBS = frozenset(map(stem, VERBS))
_PORTABLE_STEMS = frozenset(map(stem, PORTABLE))
# What these examples add to their task fits any of its form; only what the task itself says is their own.
_FITTING = frozenset(
    evolved
    for domain in ("general", "writing", "code")
    for method in ("constraint", "deepen", "concretize", "reasoning")
    for _, evolved in EXAMPLES[domain][method]
)
_OF_PROMPTS = frozenset(map(stem, ("prompt", "rewritten", "rewriting", "constraint", "requirement")))


def _content_of(run: tuple[str, ...]) -> list[str]:
    return content(" ".join(run))


def _task_fault(text: str, parent: str, domain: str, may_replace: bool) -> str | None:
    """Whether an in-depth rewriting lost what the parent asks, its names or its quantities."""
    if domain == "math":
        lost = Counter(numbers(parent)) - Counter(numbers(text))
        asks = "?" in text or re.search(
            r"\b(?:calculate|find|determine|compute|how (?:many|much))\b", text, re.IGNORECASE
        )
        if lost or not asks or not _same_quantities(text, parent):
            return "off_topic"
    if not may_replace and set(numbers(parent)) - set(numbers(text)):
        return "off_topic"
    if any(name.strip('"“”').lower() not in text.lower() for name in _NAME.findall(parent)):
        return "off_topic"
    first = next(iter(words(text)), "")
    if _TELLS_OF.match(parent) and not _TELLS_OF.match(text) and stem(first) in map(stem, words(parent)[1:]):
        return "off_topic"  # "Tie a bowtie", where its steps were to be described
    asked, named = languages(parent), languages(text)
    if asked - named:
        return "off_topic"
    if asked & MAIN_LANGUAGES and (named - asked) & MAIN_LANGUAGES:
        return "broken"  # "a Ruby function, and explain how Python does it"
    wanted = {word for word in content(parent) if word not in _STEMMED_VERBS}
    lost = len(wanted - set(content(text)))
    few = _MAY_GO + may_replace if domain in ("general", "writing") else _MAY_GO * (len(wanted) > 2)
    may_go = max((1 - _MIN_KEPT[domain]) * len(wanted), few)
    return "off_topic" if wanted and (lost > may_go or lost == len(wanted)) else None


def _same_quantities(text: str, parent: str) -> bool:
    """Whether each of the parent's figures still stands before its unit."""
    now = _units(text)
    return all(
        not unit or any(not after or unit[0] in after for after in now.get(figure, ()))
        for figure, units in _units(parent).items()
        for unit in units
    )


def _units(text: str) -> dict[str, list[list[str]]]:
    """Of each figure, the stems of up to three words behind it in its clause, with % as a word."""
    said = re.findall(r"\d+(?:[.,]\d+)*|%|[.,;:?!]|[^\W\d_]+", text.lower())
    found: dict[str, list[list[str]]] = {}
    for place, word in enumerate(said):
        if word[0].isdigit():
            after = said[place + 1 : place + 4]
            end = next((number for number, mark in enumerate(after) if mark in ".,;:?!"), len(after))
            found.setdefault(word, []).append([stem(near) for near in after[:end]])
    return found


def _gain(text: str, parent: str, new: list[str], keeps_task: bool) -> float:
    figures = len(set(numbers(text)) - set(numbers(parent)))
    quoted = re.findall(r"[`\"“]([^`\"”\n]{1,40})[`\"”]", text)
    names = {*quoted, *re.findall(r"(?<=[\w,] )[A-Z]\w+", text)}
    named = any(name.lower() not in parent.lower() for name in names)
    growth = len(words(text)) - len(words(parent))
    if not keeps_task:
        growth = max(0, growth)
    fresh = len({word for word in new if not word[0].isdigit()})
    means = any(set(content(found[1])) - set(content(parent)) for found in _BY_MEANS.finditer(text))
    questions = len(_QUANTITIES.findall(text)) > len(_QUANTITIES.findall(parent))
    gain = fresh + 2 * figures + 2 * named + 2 * questions + means
    return gain + (min(growth / 2, gain) if growth > 0 else growth / 4)


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(" .!?")
