"""How to read what models really reply: levels, scores and verdicts, with all that stands around them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

from hf_evol.prompts.tables import patterns_of

Value = TypeVar("Value", str, float)
# Where it starts and ends, what it says (None where that can't be used), and whether it counts on its own, without a
# label before it.
Mention = tuple[int, int, Value | None, bool]

_RE = patterns_of(__file__)

_MARKS = re.compile(r"[*_`\"'“”„«»{}\[\]#$\\]+")  # of Markdown, JSON and TeX
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s|\n")
_CLAUSE_END = re.compile(r" ?[.:;(\n–—-]|\Z")
_LINE_END = re.compile(r"[^\w\n]*(?:\n|\Z)")
_WORD = re.compile(r"\w")
_NEAR = 120  # characters before a mention in which words about it are looked for

_LIST_MARK = re.compile(r"(?m)^[ \t]*\d{1,2}[.)](?=[ \t])")


def strip_thinking(text: str) -> str:
    """Drop a reasoning model's leading block of thoughts, in the marks in use; one that never ends leaves nothing."""
    if "<" in text or "[" in text or text.lstrip().startswith("analysis"):  # as all the marks
        if final := _RE.channels.match(text):
            return final[1].strip()
        text = _RE.analysis.sub("", _RE.thinking.sub("", text, count=1), count=1)
        text = _RE.end_of_thinking.remove_from(text)
    return text.strip()


def read_level(reply: str) -> str | None:
    """The level of difficulty that a reply gives, one of `LEVELS`; None where it gives none, or several."""
    text = _RE.level_scale.sub(  # one level, said several times, stays
        lambda scale: scale[0] if len(set(_RE.level.findall(scale[0]))) == 1 else " ", _plain(reply)
    )
    mentions = [
        (match.start("level"), match.end(), None if match["other"] else re.sub(r"[ -]+", " ", match["level"]), True)
        for match in _RE.level_mention.finditer(text)
        if not match["denied"]
    ]
    return _agreed(text, mentions)


def read_score(reply: str) -> float | None:
    """The score from 0 to 100 that a reply gives; None where it gives none, several, or another scale's."""
    text = _RE.score_scale.sub(" ", _plain(reply))
    if len(_LIST_MARK.findall(text)) > 1:
        text = _LIST_MARK.sub(" ", text)
    mentions = []
    for match in _RE.number_mention.finditer(text):
        number = float(match["number"].replace(",", ".").replace("−", "-"))
        fits = 0 <= number <= 100 and match["most"] in (None, "100")
        on_its_own = match["most"] == "100" or not _RE.unit.match(text, match.end())
        mentions.append((match.start(), match.end(), number if fits else None, on_its_own))
    return _agreed(text, mentions)


def read_verdict(reply: str) -> str | None:
    """``win`` where a reply finds the first of two responses better, ``lose`` or ``tie``; None where it can't be read."""
    text = _RE.side.sub(lambda match: "①" if match["one"] or match["first"] else "②", _plain(reply))
    text = _RE.choices.sub(" ", text)
    mentions: list[Mention[str]] = []
    for match in _RE.comparison.finditer(text):
        near = text[max(0, match.start() - _NEAR) : match.start()]
        before = _SENTENCE_END.split(near)[-1] + (match["gap"] or "")
        if (comparison := _comparison(match, before)) is not None:
            mentions.append((match.start(), match.end(), *comparison))
    return _agreed(text, mentions)


def _comparison(match: re.Match[str], before: str) -> tuple[str | None, bool] | None:
    """What one comparison says of the first response, and whether it names the responses; None if it is none."""
    named = match["object"] or match["named"]
    if not match["win"] and not match["lose"]:
        if match["than"] and not named and not _RE.each_other.match(match.string, match.end()):
            return None  # "x is equal to 4"
        if re.search(r"\bnot\b", before):
            return (None, True)
        of_both = named or match["subject"] or re.search(r"[①②]|\b(?:both|they|responses|answers)\b", before)
        return ("tie", bool(of_both) or match.group().startswith("tie"))
    if re.search(r"\b(?:could|should|to) (?:have been|be)\W*\Z", before):
        return None  # a wish
    if re.search(r"\bneither\b", before):
        return ("tie", True)
    if re.search(r"\b(?:not|no|never|hardly)\b(?: \w+){0,2}\W*\Z", before):
        return (None, True)
    if match["object"]:
        subject = "②" if match["object"] == "①" else "①"
    else:
        sure = not re.search(r"\b(?:and|but|than|to)\b", match["gap"] or "")
        subject = match["named"] or (match["subject"] if sure else None)
    # Without a subject, "better than" completes the question's "Response 1 is".
    return ("win" if bool(match["win"]) == (subject != "②") else "lose", subject is not None)


def _plain(reply: str) -> str:
    """In lower case, without marks, with single spaces."""
    text = unicodedata.normalize("NFKC", reply).casefold().replace("’", "'").replace("n't", " not")
    return re.sub(r"[^\S\n]+", " ", _MARKS.sub(" ", text)).strip()


def _agreed(text: str, mentions: Sequence[Mention[Value]]) -> Value | None:
    """What the most explicit mentions agree on; None where they differ, or where one can't be used."""
    by_rank: dict[int, set[Value | None]] = {}
    rank, last = 0, 0
    for start, end, value, on_its_own in mentions:
        if not (last and _RE.joined.fullmatch(text, last, start)):
            rank = _rank(text, last, start, end, on_its_own)
        last = end
        by_rank.setdefault(rank, set()).add(value)
    best = max(by_rank, default=0)
    return by_rank[best].pop() if best and len(by_rank[best]) == 1 else None


def _rank(text: str, last: int, start: int, end: int, on_its_own: bool) -> int:
    """How explicit a mention is: 0 not at all, 1 by itself, 2 after a verb of rating, 3 labelled or alone, 4 concluding."""
    before = _SENTENCE_END.split(text[max(last, start - _NEAR) : start])[-1]
    line = text.rfind("\n", 0, start) + 1
    fills_line = not _WORD.search(text, line, start) and _LINE_END.match(text, end)
    opens = _WORD.search(text).start() >= start and _CLAUSE_END.match(text, end)
    explicit = bool(fills_line or opens or _RE.label.search(before))
    if not explicit and not on_its_own:
        return 0
    if _RE.concluding.search(before):
        return 4
    if explicit:
        return 3
    return 2 if _RE.rating.search(before) else 1
