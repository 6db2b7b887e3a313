"""The rules of `hf_evol.read_evolved` for parents in other languages than English: those that hold in any language, and a few
words in a dozen of them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from hf_evol.columns import OK
from hf_evol.prompts.tables import patterns_of
from hf_evol.reading.faults import is_refusal
from hf_evol.reading.forms import only_in

_LETTERS_OF_A_STEM = 5  # what is left of a word without endings, about, in any language that has them ...
_SYLLABLES_OF_A_STEM = 2  # ... and in Korean
_MIN_KEPT = 0.7  # of the letters of the parent's stems, in in-depth methods ...
_MIN_KEPT_CONCRETE = 0.62  # ... and where words are made concrete
_MAX_SHARED = 0.75  # of them, in a new task
_MIN_GAIN = 3  # words
_MOST_ADDED = 60  # words; 10 to 20 are asked for
_MIN_DISTINCT = (0.45, 0.3)  # of the words, or characters, of a longer text
_STUTTER = 4  # times one word in a row
_RUN = (5, 8)  # words, or characters, that come again, or that only an example can have given

# Scripts without spaces: a character counts half a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_HANGUL = re.compile(r"[\uac00-\ud7a3]")
_QUESTION = re.compile(r"[?？؟]")
_KEPT_AS_IT_IS = re.compile(r"(?s)```.*?```|`[^`\n]+`|[\"“„«「『]([^\"“”„«»「」『』\n]{2,60})[\"”“»」』]")
_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*•·]|\d{1,2}[.)、])[ \t]*\S")
_FIGURE = re.compile(r"\d+(?:[.,．]\d+)*")

_RE = patterns_of(__file__)
_LEAD = re.compile(r"\A[\s#*_>\"“„«]{0,12}+([^\n:：]{2,120})[:：][\s*_]*+")


def without_lead(text: str, parent: str) -> str:
    """Without a label or lead-in in front that names the task, in a dozen languages; unless the parent has a colon, too, or a longer
    word of it."""
    found = None if re.search("[:：]", parent) else _LEAD.match(text)
    if not found or not text[found.end() :].strip() or not _RE.ends_with_name.search(found[1]):
        return text
    own, lead = (
        {_stem(word) for word in tokens(part) if len(word) >= _LETTERS_OF_A_STEM} for part in (parent, found[1])
    )
    return text[found.end() :] if own.isdisjoint(lead) else text


def status_in_any_language(
    text: str, parent: str, prompt: Sequence[dict[str, str]], method: str | None, finish_reason: str
) -> str:
    """The status of the text that was found in a reply; arguments as of `hf_evol.read_evolved`."""
    said, own = tokens(text), tokens(parent)
    if (is_refusal(text) and not is_refusal(parent)) or (_RE.refusal.match(text) and not _RE.refusal.match(parent)):
        return "refusal"
    if finish_reason == "length":
        return "cut_off"
    if said == own:
        return "unchanged"
    if _is_broken(said, own):
        return "broken"
    if any(_is_of_example(said, own, turn, method) for turn in prompt[:-1]):
        return "leak"
    if size(said) - size(own) > _MOST_ADDED or len(_ITEM.findall(text)) > len(_ITEM.findall(parent)) + 2:
        return "answered"
    stems, before = set(map(_stem, said)), set(map(_stem, own))
    kept = _letters(before & stems) / max(1, _letters(before))
    if method == "breadth":
        return "near_copy" if kept >= _MAX_SHARED else OK
    concrete = method == "concretize"
    lost = _figures(parent) - _figures(text)
    if kept < (_MIN_KEPT_CONCRETE if concrete else _MIN_KEPT) or (lost and not concrete):
        return "off_topic"
    if any(part.group() not in text and (part[1] or "\0") not in text for part in _KEPT_AS_IT_IS.finditer(parent)):
        return "off_topic"
    if only_in(_QUESTION, parent, text) and before - stems:
        return "answered"  # a question put as an order keeps its words, and an answer has others for those that ask
    return OK if size(list(stems - before)) >= _MIN_GAIN else "near_copy"


def tokens(text: str) -> list[str]:
    """The words and numbers of a text, without case; in scripts without spaces, its characters."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    spaced = (
        f" {char} " if _UNSPACED.match(char) else char if unicodedata.category(char)[0] in "LMN" else " "
        for char in plain
    )
    return "".join(spaced).split()


def _figures(text: str) -> set[str]:
    """The figures of a text, in digits of whatever script."""
    plain = (unicodedata.normalize("NFKC", figure) for figure in _FIGURE.findall(text))
    return {"".join(str(unicodedata.decimal(char, char)) for char in figure) for figure in plain}


def size(said: Sequence[str]) -> float:
    """How long a text is, in words."""
    return sum(0.5 if _UNSPACED.match(token) else 1 for token in said)


def _is_unspaced(said: Sequence[str]) -> bool:
    return 2 * size(said) <= 1.5 * len(said)  # half of them are characters, or more


def _stem(word: str) -> str:
    return word[: _SYLLABLES_OF_A_STEM if _HANGUL.match(word) else _LETTERS_OF_A_STEM]


def _letters(stems: set[str]) -> int:
    return sum(map(len, stems))


def _is_broken(said: Sequence[str], own: Sequence[str]) -> bool:
    """Whether words come back as in texts of models that are stuck."""
    if any(len(set(run)) == 1 for run in _runs(said, _STUTTER) - _runs(own, _STUTTER)):
        return True
    length = _RUN[_is_unspaced(said)]
    usual = _runs(own, length)
    if any(count > max(1, usual[run]) for run, count in _runs(said, length).items()):
        return True
    fewest = min(_MIN_DISTINCT[_is_unspaced(said)], 0.9 * len(set(own)) / max(1, len(own)))
    return "\ufffd" in "".join(said) or (len(said) >= 20 and len(set(said)) / len(said) < fewest)


def _is_of_example(said: Sequence[str], own: Sequence[str], turn: dict[str, str], method: str | None) -> bool:
    """Whether a text has words in a row that only a turn can have given; what a worked example adds in depth fits any task."""
    if turn["role"] == "assistant" and method != "breadth":
        return False
    shown = tokens(turn["content"])
    length = min(len(shown), _RUN[_is_unspaced(shown)])
    return bool((_runs(said, length) & _runs(shown, length)) - _runs(own, length))


def _runs(said: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(said[start:] for start in range(length)), strict=False))
