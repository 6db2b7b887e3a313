"""Which constraints a response meets that a person might have asked for (constraint back-translation, arXiv:2410.24175)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from hf_evol.constraints import counts
from hf_evol.constraints.constraint import Constraint
from hf_evol.prompts.constraints import ALIKE, ALIKE_IN_REASONING, CODE_LINE, CONSTRUCTS, NO_KEYWORDS, asks_for
from hf_evol.prompts.words import FIT_ANYWHERE, STOP_WORDS, VERB_STEMS, content, domain_of, stem, words

_LONGEST = 20_000  # characters of a response; longer ones are no answers that a person would bound
_SHORT, _LONG = 12, 25  # words: below, a response is an answer and no prose; from here, prose may be asked for words
_LEAST_ENGLISH = 0.1  # share of stop words: in English prose, a third is usual, and in other languages fewer than this
_KEYWORDS = 4
# A noun, mostly: a determiner or preposition comes before it, an adjective perhaps, and a mark or a stop word after it.
_NOUN = re.compile(
    r"\b(?:[Tt]he|an?|of|its|their|his|her|my|our|your|this|these|those|with|for|in|on|from|many|more)\s(?:[a-z]+\s)?([a-z]{5,})"
    r"(?=[.;:!?)]|\s(?!and\b|or\b)([a-z]+))"
)
_NO_NOUN = tuple("ing ed ly wise ous ful ive ible able ary al less self selves".split())
_NAMES = frozenset("main constructor init run test foo bar func function solution".split())
# Of the counts that code has, too: what they look like in prose. All must do so.
_MARKED_PARTS = {
    "highlights": r"\*\*?[A-Za-z][^\n*]*\*",
    "placeholders": r"(?<!\w)\[[A-Za-z][A-Za-z ,'’-]*\]",
    "headings": r"(?m)^#{1,6} [A-Z]",
}
_MARKUP = re.compile(r"\bdef |\bfunction \w+\(|\w\(\)|[{}]|</|=>|==|\w\[\w|\S=\S")


def offers(instruction: str, response: str, given: str = "") -> dict[str, list[Constraint]]:
    """What may be asked for of a response that meets it, by groups, of which one constraint each says enough.

    A bound is one that a person would state, and no group holds what the instruction asks for itself. ``given`` is the row's input.
    """
    if not is_suited(instruction, response):
        return {}
    kind = shape(instruction, response)
    if kind in ("prose", "list", "verse") and not _is_english(response):
        return {}
    found: dict[str, list[Constraint]] = {}
    for group, constraint in _OF_SHAPE[kind](f"{instruction}\n{given}", response):
        if (
            not _asked_already(group, instruction)
            and constraint.holds(response)
            and (kind not in ("prose", "list") or _leaves_room(constraint, instruction))
        ):
            found.setdefault(group, []).append(constraint)
    return found


def _asked_already(group: str, instruction: str) -> bool:
    """Whether the instruction says something of this group itself; one that speaks of sentences has a layout in mind."""
    return asks_for(group, instruction) or (group == "layout" and asks_for("size", instruction))


def _leaves_room(constraint: Constraint, instruction: str) -> bool:
    """Whether a bound on words is twice the instruction's; prose of fewer has passed over a part of it."""
    if constraint.kind != "words" or constraint.at_most is None or constraint.at_most < _SHORT:
        return True
    return constraint.at_most >= 2 * len(words(instruction))


def is_suited(instruction: str, response: str) -> bool:
    """Whether constraints, which are English, may be asked for at all: of an English instruction with no endless response."""
    return len(response) <= _LONGEST and _is_english(instruction)


def shape(instruction: str, response: str) -> str:
    """What kind of text a response is: ``code``, ``math``, ``list``, ``short``, ``verse``, ``prose``, ``marked`` (JSON, a table, or
    short lines, such as headings and items), or ``mixed`` (prose and code)."""
    lines = [line for line in response.splitlines() if line.strip()]
    if counts.json_values(response) or counts.table_rows(response):
        return "marked"
    if counts.answer_lines(response) or counts.calculations(response):
        return "math"
    of_code = [line for line in lines if _is_code(line)]
    of_code = [] if all(line.startswith("#") for line in of_code) else of_code  # headings, and no comments
    code = sum(map(len, of_code)) / max(1, sum(map(len, lines)))
    if code >= 0.5:
        return "code"
    if code or len(_MARKUP.findall(response)) > 1:
        return "mixed"
    if counts.bullets(response) + counts.numbered_items(response) >= max(3, 0.7 * len(lines)):
        return "list"
    if counts.words(response) < _SHORT:
        return "short"
    if asks_for("verse", instruction):
        return "verse"
    return "marked" if len(lines) > 3 and counts.words(response) / len(lines) < 8 else "prose"


def _is_code(line: str) -> bool:
    if CODE_LINE.search(line) is None:
        return False
    said = words(line)
    prose = len(said) > 3 and sum(word in STOP_WORDS for word in said) > 0.3 * len(said)
    return (
        not prose
        or re.match(r"\s*(?:#|//|/?\*|--|<)", line) is not None
        or re.search(r"[{}=]|\w\(|^\s*[a-z].*:\s*$", line) is not None
    )


Offers = Iterator[tuple[str, Constraint]]


def _prose(task: str, response: str) -> Offers:
    yield from _of_any_text(task, response)
    n, parts = counts.words(response), counts.paragraph_list(response)
    if not re.search('["“”]|[.][.\\w]', response) and all(part.rstrip()[-1:] in (".", "!", "?") for part in parts):
        yield from _sentences(response)
    if n >= _LONG:
        for number, part in enumerate(parts[:4], 1):
            first = re.match(r"([^\W\d_]{3,})(?=[\s,.:!])", part)
            if first and first[1].lower() not in STOP_WORDS:
                group = "start" if number == 1 else "layout"  # as it says how many paragraphs there are
                yield group, Constraint("first_words", 1, None, {"paragraph": number, "word": first[1]})
        last = re.search(r"\s([a-z]{4,})[.!]?\Z", response.rstrip())
        if domain_of(task) == "writing" and last and last[1] not in STOP_WORDS and not last[1].endswith(_NO_NOUN):
            yield "end", Constraint("last_words", 1, None, {"word": last[1]})
    if 2 <= len(parts) <= 8 and counts.lines(response) < 3 * len(parts):
        yield "layout", Constraint("paragraphs", len(parts), len(parts))
        yield "layout", Constraint("paragraphs", 2 if len(parts) < 4 else len(parts) - 1)
    elif n >= 3 * _LONG and counts.lines(response) == 1:
        yield "layout", Constraint("paragraphs", 1, 1)
    if counts.questions(response) and n >= _LONG:
        yield "questions", Constraint("questions", 1)


def _sentences(response: str) -> Offers:
    n, longest = counts.sentences(response), counts.longest_sentence(response)
    if n == 1:
        yield "size", Constraint("sentences", 1, 1)
    elif n <= 12:
        yield from (("size", Constraint("sentences", None, most)) for most in (n, n + 1))
        yield from (("size", Constraint("sentences", least)) for least in (n, n - 1) if least >= 3)
        if n <= 6:
            yield "size", Constraint("sentences", n, n)
    if n > 2 and 10 <= longest < 30:
        yield "longest", Constraint("longest_sentence", None, 5 * (longest // 5 + 1))


def _of_any_text(task: str, response: str) -> Offers:
    """What may be asked for of prose, lists and verse."""
    n = _word_like(response)
    least, most = _below(n), _above(counts.words(response))
    if n >= _LONG:
        yield "size", Constraint("words", least)
        if most <= 2 * least:
            yield "size", Constraint("words", least, most)
        if not counts.commas(response):
            yield "marks", Constraint("commas", None, 0)
        yield from _keywords(task, response)
        yield from _avoided(task, response, ALIKE if not asks_for("verse", task) else ())
    yield "size", Constraint("words", None, most)
    yield from _forms(response)


def _list(task: str, response: str) -> Offers:
    yield from _of_any_text(task, response)
    yield from _items(task, response)


def _items(task: str, response: str) -> Offers:
    counted = bool(re.search(r"(?i)\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten)\b", task))
    for kind in ("bullets", "numbered_items"):
        n = getattr(counts, kind)(response)
        if n >= 3 and counts.bullets(response) + counts.numbered_items(response) == n:
            yield "items", Constraint(kind, 1)
            if not counted:
                yield "items", Constraint(kind, n if n < 10 else 5 * (n // 5))
            if not counted and n <= 10:
                yield "items", Constraint(kind, n, n)


def _verse(task: str, response: str) -> Offers:
    yield from _of_any_text(task, response)
    n = counts.lines(response)
    if n >= 3:
        yield from (("lines", Constraint("lines", *bounds)) for bounds in ((n, n), (n,), (None, 2 * -(-n // 2))))


def _short(task: str, response: str) -> Offers:
    n = counts.words(response)
    for options in (["Yes", "No"], ["True", "False"]):
        yield "size", Constraint("choices", 1, None, {"options": options})
    yield "size", Constraint("bare_numbers", 1)
    if re.fullmatch(r"""[^\W\d_][\w ,.'’"“”-]*[!?]?""", response.strip().strip('"“”')):
        bounds = (1, 1) if n == 1 else (None, next(most for most in (3, 5, 8, 10, 15) if most >= n))
        yield "size", Constraint("words", *bounds)
        if n > 2 and re.search(r"\w\Z", response.strip()):
            yield "end", Constraint("final_stops", None, 0)
    yield from _forms(response)


def _math(task: str, response: str) -> Offers:
    yield "end", Constraint("answer_lines", 1)
    n = counts.calculations(response)
    yield from (("calculations", Constraint("calculations", least)) for least in {1, min(4, n // 2 + 1)} if n)
    n = _all_lines(response)
    yield from (("lines", Constraint("lines", None, most)) for most in (n, n + 1, n + 2) if most >= 3)
    n = counts.lines(response)
    yield from (("lines", Constraint("lines", least)) for least in (n - 1, n) if 3 <= least <= 6)
    n = _word_like(response)
    bounds = ((_below(n), None), (None, _above(counts.words(response))))
    yield from (("size", Constraint("words", *pair)) for pair in bounds if n >= _LONG)
    yield from _line_length(response)
    yield from _avoided(task, response, ALIKE_IN_REASONING)
    if n >= _LONG:
        yield "marks", Constraint("commas", None, 0)


def _line_length(response: str) -> Offers:
    longest = counts.longest_line(response)
    for most in (60, 80, 100, 120):
        if longest <= most <= 1.4 * longest:
            yield "longest", Constraint("longest_line", None, most)


def _code(task: str, response: str) -> Offers:
    n = _all_lines(response)
    if n == 1:
        yield "lines", Constraint("lines", 1, 1)
    else:
        step = 1 if n < 5 else 5
        yield "lines", Constraint("lines", None, step * -(-(n + 1) // step))
    yield from _line_length(response)
    n_comments = counts.comments(response)
    if n_comments:
        yield "comments", Constraint("comments", 1)
        if n_comments > 2:
            yield "comments", Constraint("comments", n_comments // 2 + 1)
    elif n >= 4:
        yield "comments", Constraint("comments", None, 0)
    for kind, names in (("functions", counts.function_names(response)), ("classes", counts.class_names(response))):
        own = [name for name in names if name.lower() not in _NAMES]
        if len(own) == 1 and len(own[0]) > 3 and own[0] not in task:  # else, which one is meant?
            yield "name", Constraint(kind, 1, 1, {"name": own[0]})
    indents = [len(indent) for indent in re.findall(r"(?m)^( *)\S", response)]
    for width in (4, 2):
        if indents.count(width) and len(indents) - indents.count(0) > 1:
            yield "indents", Constraint("uneven_indents", None, 0, {"width": width})
            break
    code = counts.code_alone(response)
    for one in CONSTRUCTS:
        if re.search(rf"(?i)\b(?:{one.said})", task):
            continue
        if re.search(one.pattern, code):
            if not one.never_asked and (one.only_where is None or re.search(one.only_where, code)):
                yield "use", Constraint("constructs", 1, None, {"pattern": one.pattern})
        elif one.instead and n > 2 and re.search(one.instead, code):
            yield "avoid", Constraint("constructs", None, 0, {"pattern": one.pattern})
    yield from _structure(task, response)


def _forms(response: str) -> Offers:
    """IFEval's forms, where a response has them."""
    letters = counts.capital_letters(response) + counts.small_letters(response)
    if letters >= 10:
        yield "case", Constraint("capital_letters", None, 0)
        yield "case", Constraint("small_letters", None, 0)
    yield "marks", Constraint("quotations", 1)
    yield "titles", Constraint("titles", 1)
    yield "postscripts", Constraint("postscripts", 1)
    yield from _parts(response)


def _parts(response: str) -> Offers:
    for kind, given in _MARKED_PARTS.items():
        n = len(re.findall(given, response))
        if n and n == getattr(counts, kind)(response):
            yield "structure", Constraint(kind, min(n, 5))
    stressed = [
        word for word in re.findall(r"\b[A-Z]{2,}\b", response) if stem(word.lower()) in FIT_ANYWHERE
    ]  # no abbreviations
    if stressed and counts.capital_letters(response) < counts.small_letters(response):
        yield "structure", Constraint("capital_words", min(len(stressed), 5))


def _marked(task: str, response: str) -> Offers:
    yield from _structure(task, response)
    if not counts.json_values(response):
        yield from _items(task, response)
        yield from _parts(response)


def _structure(_: str, response: str) -> Offers:
    yield from (("structure", Constraint(kind, 1)) for kind in ("json_values", "table_rows", "code_blocks"))


_OF_SHAPE = {
    "prose": _prose, "list": _list, "verse": _verse, "short": _short, "math": _math, "code": _code, "marked": _marked, "mixed": _structure,
}  # fmt: skip


def _keywords(task: str, response: str) -> Offers:
    """Nouns, mostly, that say something, are no names and are not given: those that occur most often, and then the longest."""
    given, last = set(content(task)), words(response)[-1]
    found = Counter(re.findall(r"(?<![\w'’-])[a-z]{5,}(?![\w'’-])", response))
    nouns = {noun for noun, after in _NOUN.findall(response) if not after or after in STOP_WORDS}
    telling = [
        word
        for word in sorted(nouns)
        if word not in STOP_WORDS and word != last and word not in NO_KEYWORDS and content(word)
    ]
    usable = [word for word in telling if stem(word) not in given | FIT_ANYWHERE and not word.endswith(_NO_NOUN)]
    usable = [word for word in usable if found[word] > 1] or usable  # what the response is about, if it says so twice
    for word in sorted(usable, key=lambda word: (-found[word], -len(word)))[:_KEYWORDS]:
        yield "keyword", Constraint("occurrences", 1, None, {"text": word})
    for word in telling:
        if (n := counts.occurrences(response, word)) >= 3 and stem(word) not in VERB_STEMS:
            yield "keyword", Constraint("occurrences", min(n, 5) - 1, None, {"text": word})


def _avoided(task: str, response: str, alike: Sequence[Sequence[str]]) -> Offers:
    """Words that a response does without, as it uses another of like meaning."""
    said, known = set(words(response)), set(words(f"{task} {response}"))
    for group in alike:
        for word in group if said.intersection(group) else ():
            if word not in known:
                yield "forbidden", Constraint("occurrences", None, 0, {"text": word})


def _is_english(text: str) -> bool:
    """Whether a text may be English: of some words, stop words are among them."""
    said = words(text)
    letters = [char for char in text if char.isalpha()]
    if sum(not char.isascii() for char in letters) > 0.2 * len(letters):
        return False
    return len(said) < 8 or sum(word in STOP_WORDS for word in said) >= _LEAST_ENGLISH * len(said)


def _word_like(response: str) -> int:
    """Words as a person counts them, which are fewer than `counts.words` where there are figures and hyphens."""
    return sum(any(map(str.isalpha, word)) for word in response.split())


def _all_lines(response: str) -> int:
    """With blank ones, so that a bound holds however one counts."""
    return len(response.strip().splitlines())


def _step(n: int) -> int:
    return next(step for most, step in ((60, 5), (150, 10), (400, 25), (n, 50)) if n <= most)


def _below(n: int) -> int:
    """A round number, a tenth below or more."""
    return int(0.9 * n) // _step(n) * _step(n)


def _above(n: int) -> int:
    return -(-int(1.1 * n + 1) // _step(n)) * _step(n)
