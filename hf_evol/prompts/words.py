"""Words as the rules about texts see them: tokens, rough stems, and the English lists of ``words.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from string import ascii_lowercase, digits
from typing import TypeVar

from hf_evol.prompts.tables import patterns_of, table_of

Read = TypeVar("Read")

# A word or a number; in scripts written without spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\d+(?:[.,]\d+)*|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+(?:['’][a-z]+)?")
# Of bytes: small letters as they are, what may be within a number or a word as 0, all others as spaces.
_ASCII = bytes(code if chr(code) in ascii_lowercase else 0 if chr(code) in f"{digits}'" else 32 for code in range(256))
_SUFFIXES = ("ations", "ation", "ities", "ings", "edly", "ing", "ity", "ies", "ed", "es", "ly", "e", "s", "y")

_LISTS, _RE = table_of(__file__), patterns_of(__file__)
STOP_WORDS, SMALL_WORDS, VERBS, LEAD_WORDS = (
    frozenset(_LISTS[name].split()) for name in ("stop_words", "small_words", "verbs", "lead")
)


class _Known(dict[str, Read]):
    """What a function reads in short texts, kept for a while, as the rules ask for it again and again; long ones would fill the
    memory. To look one up takes no Python code."""

    def __init__(self, read: Callable[[str], Read], most: int, longest: int) -> None:
        super().__init__()
        self.read, self.most, self.longest = read, most, longest

    def __missing__(self, text: str) -> Read:
        found = self.read(text)
        if len(text) <= self.longest:
            if len(self) >= self.most:
                self.clear()
            self[text] = found
        return found


def remembering(read: Callable[[str], Read]) -> Callable[[str], Read]:
    """The same function of a text, which remembers."""
    return _Known(read, 4096, 1000).__getitem__


def remembering_words(read: Callable[[str], Read]) -> Callable[[str], Read]:
    """The same function of a word, which remembers."""
    return _Known(read, 100_000, 40).__getitem__


@remembering
def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case."""
    small = text.lower().replace("’", "'")
    if small.isascii() and b"\0" not in (spaced := small.encode().translate(_ASCII)):
        return tuple(spaced.decode().split())
    return tuple(_WORD.findall(small))


@remembering_words
def stem(word: str) -> str:
    """A word without its endings: "describing" and "described" give the same."""
    word = word.removesuffix("'s")
    for _ in range(2):
        if word.endswith(_SUFFIXES):
            endings = (end for end in _SUFFIXES if word.endswith(end) and len(word) - len(end) >= 3)
            word = word.removesuffix(next(endings, ""))
    return word


VERB_STEMS, _GENERIC = (frozenset(map(stem, _LISTS[name].split())) for name in ("verbs", "generic"))
FIT_ANYWHERE = VERB_STEMS.union(map(stem, _LISTS["fit_anywhere"].split()))
TEXTS = frozenset(map(stem, _LISTS["texts"].split()))


@remembering
def content(text: str) -> tuple[str, ...]:
    """The stems of a text's words that say something: neither stop words nor generic ones."""
    return tuple(filter(None, map(_said_by, words(text))))


@remembering_words
def _said_by(word: str) -> str | None:
    said = stem(word)
    return None if word in STOP_WORDS or said in _GENERIC else said


_NUMBERS = {"half": 0.5, "quarter": 0.25, "fourth": 0.25, "fifth": 0.2, "tenth": 0.1}
_NUMBERS |= {"twice": 2, "double": 2, "triple": 3, "dozen": 12}
_FROM_TWO = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety hundred"
_NUMBERS |= {word: number for number, word in enumerate(_FROM_TWO.split(), start=2)}
_NUMBERS |= {word: 10 * number for number, word in enumerate(_TENS.split(), start=1)}


@remembering
def numbers(text: str) -> tuple[float, ...]:
    """The quantities of a text, in figures or words up to a hundred; "one" is none, as it is mostly a pronoun."""
    return tuple([number for number in map(_number, words(text)) if number is not None])


@remembering_words
def _number(word: str) -> float | None:
    if not word[0].isdigit():
        return float(_NUMBERS[word]) if word in _NUMBERS else None
    comma = "" if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", word) else "."
    with suppress(ValueError):  # 1.2.3, or digits of other scripts
        return float(word.replace(",", comma))
    return None


@remembering
def domain_of(instruction: str) -> str:
    """The domain of an instruction by its words: ``"code"``, ``"math"`` (two quantities and a question for one),
    ``"writing"`` (a text of a named form) or ``"general"``."""
    if len(set(map(str.lower, _RE.code.findall(instruction)))) >= 2 or _RE.makes_code.match(instruction):
        return "code"
    if len(numbers(instruction)) >= 2 and _RE.quantity.search(instruction) and len(words(instruction)) >= 12:
        return "math"
    return "writing" if _RE.text_to_write.match(instruction) else "general"
