"""How to read what models really reply: levels, scores and verdicts, with all that stands around them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

from hf_evol.prompts.patterns import AnyCase

Value = TypeVar("Value", str, float)
# Where it starts and ends, what it says (None where that can't be used), and whether it counts on its own, without a
# label before it.
Mention = tuple[int, int, Value | None, bool]

_TAGS = r"(?:seed:)?(?:think(?:ing)?|thought|reasoning|reflection)"
_THINKING = re.compile(
    rf"(?is)\A\s*(?:<({_TAGS})>(?:.*?</\1>|.*\Z)|\[THINK\](?:.*?\[/THINK\]|.*\Z)|<\|begin_of_thought\|>(?:.*?<\|end_of_thought\|>|.*\Z))"
)
# The closing mark alone, at a line's end: some chat templates put the opening one into the prompt.
_END_OF_THINKING = AnyCase(rf"(?s)\A(?:(?!<{_TAGS}>|\[think\]).)*?(?:</{_TAGS}>|\[/think\])[ \t]*(?:\n|\Z)")
# Harmony channels, with their special tokens, and as they read without them.
_CHANNELS = re.compile(
    r"(?s)\A\s*(?:<\|start\|>assistant)?<\|channel\|>(?:.*<\|channel\|>)?final<\|message\|>(.*?)(?:<\|(?:return|end)\|>|\Z)"
)
_ANALYSIS = re.compile(
    r"(?s)\A\s*(?:(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>.*\Z|analysis\S.*?assistantfinal)"
)

_MARKS = re.compile(r"[*_`\"'“”„«»{}\[\]#$\\]+")  # of Markdown, JSON and TeX
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s|\n")
_CLAUSE_END = re.compile(r" ?[.:;(\n–—-]|\Z")
_LINE_END = re.compile(r"[^\w\n]*(?:\n|\Z)")
_WORD = re.compile(r"\w")
_NEAR = 120  # characters before a mention in which words about it are looked for
_CONCLUDING = re.compile(r"\b(?:final|finally|overall|total|in conclusion|therefore|thus|hence|in summary)\b")
_LABEL = re.compile(
    r"\b(?:difficulty|level|rating|score|answer|verdict|judge?ment|assessment|evaluation|classification|boxed)\b"
    r"(?:\W|\b(?:level|rating|score|value|of|for|this|the|its|that|instruction|task|prompt|question|is|as|at|was|be|"
    r"would|should|to|an?|likely|probably|clearly|about|around|approximately|roughly|considered|rated|classified)\b)*\Z"
)
_RATING = re.compile(
    r"\b(?:rat(?:e|ed|ing)|score[sd]?|give|assign|estimate|put|place|say|consider|classify|classified|categori[sz]ed?|"
    r"label|call|judge|deserves?|find)\b.{0,60}\Z"
)
# Between two mentions of one breath: "70-80", "easy or medium", "hard (or even very hard)".
_JOINED = re.compile(
    r"[\s,/~<>→–—-]*(?:\(?\b(?:or|to|and|but|even|perhaps|maybe|possibly|bordering|leaning|on|towards?)\b[\s,]*)*"
)

_LEVEL = r"(?:very[ -]+(?:easy|hard)|easy|medium|hard)"
_LEVEL_MENTION = re.compile(
    r"(?P<denied>\b(?:no|not|never|neither|nor|too)(?: \w+){0,2} )?"
    r"(?P<other>\b(?:extremely|exceptionally|incredibly|extra|super|ultra|moderately|somewhat|slightly) )?"
    rf"(?<![\w-])(?P<level>{_LEVEL})(?![\w-])(?! to (?!{_LEVEL}))"  # "hard to say" is no level
)
_LEVEL_SCALE = re.compile(rf"{_LEVEL}(?:[\s,/|;<>→–-]+(?:(?:or|and|to) )?{_LEVEL}){{2,}}|very easy to very hard")

_NUMBER_MENTION = re.compile(
    r"(?<![\w.,/])(?<![a-z]-)(?P<number>[-−]?\d+(?:[.,]\d{1,2})?)(?!\w|[.,]\d|-[a-z])"
    r"(?:\s*(?:/|%|(?:out )?of(?: a)?(?: possible| maximum)?(?= \d))\s*(?P<most>\d+)?)?"
)
# A number of something is no score: "3 steps".
_UNIT = re.compile(
    r"\s(?!(?:points?|because|since|as|due|given|for|overall|based|which|and|or|to|but|with|on|in|seems?|is|would|feels?)\b)[a-z]"
)
_NOTE = r"(?:\s*\([^()\n]*\))?"
_SCORE_SCALE = re.compile(
    rf"\b[01]{_NOTE}\s*(?:-|–|—|\.\.+|to|and|through)\s*100\b(?!\s*/){_NOTE}"
    r"|(?<!\d )\bout of(?: a)?(?: possible| maximum)? 100\b"
    r"|\b(?:0|100)\s*(?:=|(?:is|being|meaning|means|represents|representing)\b)"
)
_LIST_MARK = re.compile(r"(?m)^[ \t]*\d{1,2}[.)](?=[ \t])")

_SIDE = re.compile(
    r"\b(?:response|answer|output|assistant) ?(?:(?P<one>1|one)|2|two)\b"
    r"|\bthe (?:(?P<first>first)|second)(?: (?:response|answer|output|one)\b|(?=\W*\Z))"
)
_CHOICES = re.compile(r"better than\W{1,3}worse than\W{1,3}(?:or|and)? ?equal to(?: ②)?")
_COMPARISON = re.compile(
    r"(?:(?P<subject>[①②])(?P<gap>[^①②.;,\n]{0,40}?))?"
    r"\b(?:(?P<win>better|superior|preferable|wins)|(?P<lose>worse|inferior|loses)|equal|equally|equivalent|tied?)\b"
    r"(?P<than>(?: \w+){0,4}? (?:than|to|as)\b)?"
    r"(?: ?(?P<object>[①②])|(?: response| answer| one| option)?(?: overall)?(?: is|:) ?(?P<named>[①②]))?"
)
_EACH_OTHER = re.compile(r"\W*(?:\Z|\n|each other|one another|the other|it\b)")


def strip_thinking(text: str) -> str:
    """Drop a reasoning model's leading block of thoughts, in the marks in use; one that never ends leaves nothing."""
    if "<" in text or "[" in text or text.lstrip().startswith("analysis"):  # as all the marks
        if final := _CHANNELS.match(text):
            return final[1].strip()
        text = _ANALYSIS.sub("", _THINKING.sub("", text, count=1), count=1)
        text = _END_OF_THINKING.remove_from(text)
    return text.strip()


def read_level(reply: str) -> str | None:
    """The level of difficulty that a reply gives, one of `LEVELS`; None where it gives none, or several."""
    text = _LEVEL_SCALE.sub(  # one level, said several times, stays
        lambda scale: scale[0] if len(set(re.findall(_LEVEL, scale[0]))) == 1 else " ", _plain(reply)
    )
    mentions = [
        (match.start("level"), match.end(), None if match["other"] else re.sub(r"[ -]+", " ", match["level"]), True)
        for match in _LEVEL_MENTION.finditer(text)
        if not match["denied"]
    ]
    return _agreed(text, mentions)


def read_score(reply: str) -> float | None:
    """The score from 0 to 100 that a reply gives; None where it gives none, several, or another scale's."""
    text = _SCORE_SCALE.sub(" ", _plain(reply))
    if len(_LIST_MARK.findall(text)) > 1:
        text = _LIST_MARK.sub(" ", text)
    mentions = []
    for match in _NUMBER_MENTION.finditer(text):
        number = float(match["number"].replace(",", ".").replace("−", "-"))
        fits = 0 <= number <= 100 and match["most"] in (None, "100")
        on_its_own = match["most"] == "100" or not _UNIT.match(text, match.end())
        mentions.append((match.start(), match.end(), number if fits else None, on_its_own))
    return _agreed(text, mentions)


def read_verdict(reply: str) -> str | None:
    """``win`` where a reply finds the first of two responses better, ``lose`` or ``tie``; None where it can't be read."""
    text = _SIDE.sub(lambda match: "①" if match["one"] or match["first"] else "②", _plain(reply))
    text = _CHOICES.sub(" ", text)
    mentions: list[Mention[str]] = []
    for match in _COMPARISON.finditer(text):
        near = text[max(0, match.start() - _NEAR) : match.start()]
        before = _SENTENCE_END.split(near)[-1] + (match["gap"] or "")
        if (comparison := _comparison(match, before)) is not None:
            mentions.append((match.start(), match.end(), *comparison))
    return _agreed(text, mentions)


def _comparison(match: re.Match[str], before: str) -> tuple[str | None, bool] | None:
    """What one comparison says of the first response, and whether it names the responses; None if it is none."""
    named = match["object"] or match["named"]
    if not match["win"] and not match["lose"]:
        if match["than"] and not named and not _EACH_OTHER.match(match.string, match.end()):
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
        if not (last and _JOINED.fullmatch(text, last, start)):
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
    explicit = bool(fills_line or opens or _LABEL.search(before))
    if not explicit and not on_its_own:
        return 0
    if _CONCLUDING.search(before):
        return 4
    if explicit:
        return 3
    return 2 if _RATING.search(before) else 1
