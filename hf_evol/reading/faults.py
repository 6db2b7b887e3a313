"""What is wrong with an evolved text: the rules behind `hf_evol.read_evolved`, with their thresholds at the top."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from operator import eq

from hf_evol.columns import OK
from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.patterns import AnyCase
from hf_evol.prompts.tables import patterns_of, table_of
from hf_evol.prompts.words import (
    FIT_ANYWHERE,
    STOP_WORDS,
    VERB_STEMS,
    VERBS,
    content,
    domain_of,
    numbers,
    remembering,
    remembering_words,
    stem,
    words,
)
from hf_evol.reading.fit import META, fits, form_fault
from hf_evol.reading.forms import only_in

_MIN_GAIN = 2.5  # in new content words; a number or a quoted name counts twice, a word more than the parent has a half
_MIN_KEPT = 0.7  # of the parent's content words, in in-depth methods
_MAY_GO = 1  # of them, of three or more; in general and writing however few there are, and one more where they are made concrete
_MAX_SHARED = 0.7  # of the parent's content words, in a new task
_A_QUANTITY = 10  # smaller whole figures may well come back
_MIN_GROWTH_OF_MATH = 3  # words; a problem that is no longer has gained a changed name at most
_MOST_OF_A_WORD = 2  # times that a content word may come more often than in the parent
_FEW_WORDS = 3  # content words of a parent that may all come back in a new task
_MIN_DISTINCT = 0.45  # of the words of a longer text
_RUN = 4  # words in a row, which come twice in a text of a model that is stuck, or which only the prompt can have given

_RE = patterns_of(__file__)
_TWICE = re.compile(r"\b(\w{3,}+)(?:,? and |, )(?:an? |the )?\1\b")
_FROM_ITSELF = AnyCase(r"\bfrom (\w.{2,40}?) to \1\b")
_CAPITAL = r"[A-Z](?<=[\w,] [A-Z])\w+"  # looks for the letter first, which is rare
_CAPITALS = re.compile(_CAPITAL)
_NAME = re.compile(rf"{_CAPITAL}|[\"“][^\"“”\n]{{2,60}}[\"”]")
_QUOTED = re.compile(r"[`\"“]([^`\"”\n]{1,40})[`\"”]")
_THAN = AnyCase(r"\bthan (?:an? |the )?((?:[\w-]+ ){0,2}[\w-]+)(?=[ ,.;?!]|\Z)")
_FIGURES_AND_WORDS = re.compile(r"\d+(?:[.,]\d+)*|%|[.,;:?!]|[^\W\d_]+")
_DEGREES = stem("degrees")  # whose sign is no word
_SYMBOLS = {stem(name): names.split()[0] for names in table_of(__file__)["units"] for name in names.split()}
_OF_PROMPTS = set(map(stem, ("prompt", "rewritten", "rewriting", "constraint", "requirement")))
# What these examples add to their task fits any of its form; only what the task itself says is their own.
_FITTING = frozenset(
    evolved
    for domain in ("general", "writing", "code", "science")
    for method in ("constraint", "deepen", "concretize", "reasoning")
    for _, evolved in EXAMPLES[domain][method]
)
_IN_ANY_CASE = "python|java|javascript|typescript|php|ruby|rust|swift|kotlin|perl|visual basic|objective-c|scala|matlab"
_MAIN_LANGUAGES = {*_IN_ANY_CASE.split("|"), "c", "c++", "c#", "go", "r"}  # of which a task is written in one
_LANGUAGE = re.compile(
    rf"(?<![\w.°])(?:(?i:{_IN_ANY_CASE}|sql|mysql|html|css|bash|shell|powershell|node\.js|express|react|django|flask|"
    r"jquery|tensorflow|pytorch|pandas|numpy|latex|xml)|C\+\+|C#|C|R|Go|JS|js)(?![\w+#-])"
)
_IN_LANGUAGES = frozenset(re.findall(r"[a-z]+", _LANGUAGE.pattern.lower()))


def is_refusal(text: str) -> bool:
    """Whether a reply begins the way refusals do."""
    return bool(_RE.refusal.match(text))


def status_of(text: str, parent: str, prompt: Sequence[dict[str, str]], method: str | None, finish_reason: str) -> str:
    """The status of the text that was found in a reply; arguments as of `hf_evol.read_evolved`."""
    is_new, domain = method == "breadth", domain_of(parent)
    if is_refusal(text) and not is_refusal(parent):
        return "refusal"
    if finish_reason == "length":
        return "cut_off"
    if _squeeze(text) == _squeeze(parent):
        return "unchanged"
    if domain == "math" and only_in(_RE.working, text, parent):
        return "answered"
    if is_broken(text, parent, is_new) or not fits(text, parent):
        return "broken"
    said, own = set(content(text)), set(content(parent))
    head = text.partition(" ")[0] if VERBS.issuperset(words(text)[:1]) else ""
    new = set(content(text)[len(content(head)) :]) - own
    if _leaks(text, parent, prompt, new if domain != "math" else set()):  # everyday things are in all math problems
        return "leak"
    if (fault := form_fault(text, parent)) is not None:
        return fault
    growth = len(words(text)) - len(words(parent))
    task = own - VERB_STEMS
    if is_new:
        growth = max(0, growth)
        if len(task) >= _FEW_WORDS and len(task & said) >= _MAX_SHARED * len(task):
            return "near_copy"  # the same task still
    else:
        if (fault := _task_fault(text, parent, domain, method == "concretize")) is not None:
            return fault
        if domain == "math" and growth < _MIN_GROWTH_OF_MATH:
            return "near_copy"
    return OK if _gain(text, parent, new, growth) >= _MIN_GAIN else "near_copy"


def is_broken(text: str, parent: str, is_new: bool) -> bool:
    """Whether words come back as in texts of models that are stuck, or a quantity of the parent is said once more."""
    said, before = words(text), words(parent)
    own, now = content(parent), content(text)
    if any(map(eq, said, said[1:])) or len(set(runs(said))) < len(said) - _RUN + 1:
        usual = Counter(runs(before))
        for run, count in Counter(runs(said)).items():
            if len(set(run)) == 1 and run not in usual:
                return True
            least = 2 if run in usual else 1
            if count > max(1, usual[run]) and sum(word not in STOP_WORDS for word in run) >= least:
                return True
    if len(now) - len(set(now)) >= _MOST_OF_A_WORD:
        often = [word for word, count in Counter(now).items() if count > _MOST_OF_A_WORD]
        more = max((now.count(word) - own.count(word) for word in often), default=0)
        if more > _MOST_OF_A_WORD + (is_new or _is_math(text)):
            return True
    small = text.lower()
    if (" and " in small or ", " in small) and any(other not in before for other in _TWICE.findall(small)):
        return True
    if _FROM_ITSELF.search(text) or only_in(_RE.garbled, text, parent):
        return True
    if len(set(pairwise(said))) < len(said) - 1:
        again = {pair for pair, count in Counter(pairwise(said)).items() if count > 1 and STOP_WORDS.isdisjoint(pair)}
        if not again.issubset(pairwise(before)) and not _is_math(text):
            return True
    if only_in(_THAN, text, parent) and any(set() < set(content(other)) <= set(own) for other in _THAN.findall(text)):
        return True  # "sort them by bubble sort, and explain why it is faster than bubble sort"
    if given := Counter(numbers(parent)):
        figures = Counter(numbers(text))
        if any(
            count > given[figure] > 0 and (figure >= _A_QUANTITY or figure % 1) for figure, count in figures.items()
        ):
            return True
    fewest = min(_MIN_DISTINCT, 0.9 * len(set(before)) / max(1, len(before)))
    return len(said) >= 20 and len(set(said)) / len(said) < fewest


def _is_math(text: str) -> bool:
    return bool(numbers(text)) and domain_of(text) == "math"


def runs(said: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return zip(*(said[start:] for start in range(_RUN)), strict=False)


def _leaks(text: str, parent: str, prompt: Sequence[dict[str, str]], new: set[str]) -> bool:
    """Whether the text has words that only the prompt can have given: a run of them, or most of what is new."""
    own, before = set(runs(words(text))).difference(runs(words(parent))), content(parent)
    shown: set[str] = set()
    topics: set[str] = set()
    for place, turn in enumerate(prompt, start=1):
        told = turn["content"]
        if told in _FITTING:
            continue
        if place == len(prompt):
            told = told.replace(parent, "\n", 1)
        its_runs, its_words = _told(told)
        for run in () if own.isdisjoint(its_runs) else own & its_runs:
            own_words = (word for word in content(" ".join(run)) if word not in FIT_ANYWHERE and word not in before)
            if any(not word[0].isdigit() for word in own_words):
                return True
        if not new.isdisjoint(its_words):
            shown |= new & its_words
            if turn["role"] == "user" and place < len(prompt):
                topics |= new & its_words
    leaked = {word for word in shown if word not in FIT_ANYWHERE and not word[0].isdigit()}
    if leaked and (only_in(META, text, parent) or leaked & _OF_PROMPTS):
        return True
    is_most = 2 * len(leaked) >= len(new) and len(leaked) >= min(2, len(new))
    return bool(leaked) and (bool(leaked & topics) or is_most)


@remembering
def _told(text: str) -> tuple[frozenset[tuple[str, ...]], frozenset[str]]:
    """The runs of words in a turn of a prompt, and its content words."""
    return frozenset(runs(words(text))), frozenset(content(text))


def _task_fault(text: str, parent: str, domain: str, may_replace: bool) -> str | None:
    """Whether an in-depth rewriting lost what the parent asks, its names or its quantities."""
    given, figures = numbers(parent), numbers(text)
    if domain == "math":
        lost_figures = Counter(given) - Counter(figures)
        if lost_figures or not _RE.asks_how_many.search(text) or not _same_quantities(text, parent):
            return "off_topic"
    if not may_replace and not set(figures).issuperset(given):
        return "off_topic"
    if not _measured(parent) <= _measured(text):
        return "off_topic"
    small = text.lower()
    if any(name.strip('"“”').lower() not in small for name in _NAME.findall(parent)):
        return "off_topic"
    if only_in(_RE.tells_of, parent, text) and set(map(stem, words(text)[:1])) & set(map(stem, words(parent)[1:])):
        return "off_topic"  # "Tie a bowtie", where its steps were to be described
    asked, named = languages(parent), languages(text)
    if asked - named:
        return "off_topic"
    if asked & _MAIN_LANGUAGES and (named - asked) & _MAIN_LANGUAGES:
        return "broken"  # "a Ruby function, and explain how Python does it"
    wanted = set(content(parent)) - VERB_STEMS
    lost = len(wanted - set(content(text)))
    few = _MAY_GO + may_replace if domain in ("general", "writing") else _MAY_GO * (len(wanted) > 2)
    may_go = max((1 - _MIN_KEPT) * len(wanted), few)
    return "off_topic" if wanted and (lost > may_go or lost == len(wanted)) else None


def _same_quantities(text: str, parent: str) -> bool:
    """Whether each of the parent's figures still stands before its unit."""
    now = _units(text)
    return all(
        not unit or any(figure == other and (not after or unit[0] in after) for other, after in now)
        for figure, unit in _units(parent)
    )


def _measured(text: str) -> set[tuple[str, str]]:
    """The quantities of a text that have a unit of measurement: the figure and the unit's symbol."""
    units = ((figure, [word for word in after if word != _DEGREES][:1]) for figure, after in _units(text))
    return {(figure, _SYMBOLS[unit]) for figure, after in units for unit in after if unit in _SYMBOLS}


def _units(text: str) -> list[tuple[str, list[str]]]:
    """Each figure, and the stems of up to three words behind it in its clause, with % as a word."""
    said = _FIGURES_AND_WORDS.findall(text.lower()) if numbers(text) else []
    return [
        (word, [stem(near) for near in takewhile(lambda near: near not in ".,;:?!", said[place : place + 3])])
        for place, word in enumerate(said, start=1)
        if word[0].isdigit()
    ]


def languages(text: str) -> set[str]:
    """The programming languages and libraries that a text names, in lower case."""
    names_one = not text.isascii() or any(map(_may_be_language, words(text)))
    found = {name.lower() for name in _LANGUAGE.findall(text)} if names_one else set()
    if "SELECT" in text:
        found.add("sql")
    return {{"js": "javascript", "mysql": "sql"}.get(name, name) for name in found}


@remembering_words
def _may_be_language(word: str) -> bool:
    return not _IN_LANGUAGES.isdisjoint(word.split("'"))


def _gain(text: str, parent: str, new: set[str], growth: int) -> float:
    """How much a text asks beyond its parent, in new content words."""
    figures = len(set(numbers(text)) - set(numbers(parent)))
    before = parent.lower()
    named = any(name.lower() not in before for name in _QUOTED.findall(text) + _CAPITALS.findall(text))
    fresh = sum(not word[0].isdigit() for word in new)
    means = any(set(content(found)) - set(content(parent)) for found in _RE.by_means.findall(text))
    questions = len(_RE.quantities.findall(text)) > len(_RE.quantities.findall(parent))
    gain = fresh + 2 * figures + 2 * named + 2 * questions + means
    return gain + (min(growth / 2, gain) if growth > 0 else growth / 4)


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(" .!?")
