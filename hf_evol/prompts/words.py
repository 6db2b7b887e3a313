"""Words as the rules about texts see them: tokens, rough stems, and the English lists of ``words.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from string import ascii_lowercase, digits
from typing import TypeVar

import yaml

from hf_evol.prompts.patterns import AnyCase

Read = TypeVar("Read")

# A word or a number; in scripts written without spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\d+(?:[.,]\d+)*|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+(?:['’][a-z]+)?")
# Of bytes: small letters as they are, what may be within a number or a word as 0, all others as spaces.
_ASCII = bytes(code if chr(code) in ascii_lowercase else 0 if chr(code) in f"{digits}'" else 32 for code in range(256))
_SUFFIXES = ("ations", "ation", "ities", "ings", "edly", "ing", "ity", "ies", "ed", "es", "ly", "e", "s", "y")

_LISTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
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


_CODE = AnyCase(
    r"```|\b(?:python|java|javascript|typescript|c\+\+|c#|php|ruby|golang|rust|swift|kotlin|sql|mysql|html|css|bash|shell script|"
    r"regex|regular expression|json|xml|api|algorithm|array|string|function|class|method|loop|boolean|integer|compiler|database|"
    r"query|code|program|script|software|react|django|flask|node\.js|jquery|pandas|numpy|recursion|recursive|linked list|"
    r"binary|hashmap|dictionary|tuple|data structure)s?(?!\w)"
)
_MAKES_CODE = re.compile(
    r"(?i)\A\W*(?:write|create|implement|develop|construct|build|design|generate|fix|debug|give)\s++(?:(?:an?|the|this|some)\s*+)?"
    r"(?:[\w+#.-]++\s++){0,2}?(?:function|loop|query|array|class|method|regular expression|regex|code|html|css|sql)\b"
)
_TEXT_TO_WRITE = re.compile(
    r"(?i)\A\W*(?:please\s+)?(?:given\b[^,]*,\s*)?(?:write|compose|create|generate|synthesi[sz]e|draft|craft|tell|make|produce|invent|imagine|prepare|construct|develop|come up "
    r"with)\b(?:[^\w.?!]++\w[\w'’-]*+){0,7}?[^\w.?!]++(?:\w[\w'’-]*?['’-])?(?:stor(?:y|ies)|poems?|haikus?|sonnet|limerick|verse|lyrics|song|rap|letters?|essays?|speech|"
    r"e-?mails?|articles?|blog|posts?|tweets?|caption|headlines?|slogans?|taglines?|advert\w*|ad|jingle|reviews?|dialogues?|"
    r"conversation|monologue|scene|paragraphs?|memo|press release|biography|obituary|commentary|cover letter|narrative|tale|fable|jokes?|riddles?|"
    r"prologue|(?:chatbot|film|movie|play|tv|radio|comedy|drama) script|script (?:for|about|of) an? (?:[\w-]+ ){0,3}?(?:film|movie|play|show|video|podcast|"
    r"commercial|drama|comedy|sketch|scene|episode)|note|invitation|toast|announcement|brochure|proposal|description)\b"
)
_QUANTITY = AnyCase(
    r"\bhow (?:many|much|long|far|old|fast|often|tall)\b|\bwhat (?:is|was|are|percent|percentage|fraction)\b|"
    r"\b(?:calculate|determine|compute|find (?:the|its|their|his|her|how|all|[xyn]|(?:\w+ ){0,2}(?:numbers?|integers?|values?|angles?|sides?)))\b"
)


@remembering
def domain_of(instruction: str) -> str:
    """The domain of an instruction by its words: ``"code"``, ``"math"`` (two quantities and a question for one),
    ``"writing"`` (a text of a named form) or ``"general"``."""
    if len(set(map(str.lower, _CODE.findall(instruction)))) >= 2 or _MAKES_CODE.match(instruction):
        return "code"
    if len(numbers(instruction)) >= 2 and _QUANTITY.search(instruction) and len(words(instruction)) >= 12:
        return "math"
    return "writing" if _TEXT_TO_WRITE.match(instruction) else "general"
