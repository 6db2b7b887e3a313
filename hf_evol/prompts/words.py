"""Words as the rules about texts see them: tokens, rough stems, stop words, and verbs that open instructions (English)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

# A word or a number; in scripts written without spaces, a character.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|\d+(?:[.,]\d+)*|(?:(?![\d_\u3040-\u30ff\u3400-\u9fff])\w)+(?:['’][a-z]+)?"
)
_SUFFIXES = ("ations", "ation", "ities", "ings", "edly", "ing", "ity", "ies", "ed", "es", "ly", "e", "s", "y")


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower().replace("’", "'"))


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A word without its endings: "describing" and "described" give the same."""
    word = word.removesuffix("'s")
    for _ in range(2):
        endings = (end for end in _SUFFIXES if word.endswith(end) and len(word) - len(end) >= 3)
        word = word.removesuffix(next(endings, ""))
    return word


def stems(words: Iterable[str]) -> frozenset[str]:
    return frozenset(map(stem, words))


def content(text: str) -> list[str]:
    """The stems of a text's words that say something: neither stop words nor generic ones."""
    said = (stem(word) for word in words(text) if word not in STOP_WORDS)
    return [word for word in said if word not in _GENERIC]


STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers him his how i
    if in into is it its just me more most my no nor not now of off on once only or other our ours out over own same she
    should so some such than that the their theirs them then there these they this those through to too under until up
    very was we were what when where which while who whom why will with would you your yours it's i'm you're don't
    doesn't isn't that's what's let's one two many much may might must shall whose whether within without upon per via
    etc across along around among behind beside toward towards since despite way ways anything something everything
    someone anyone everyone well like
    """.split()
)

# Verbs that open instructions.
VERBS = frozenset(
    """
    accelerate act adapt add address adjust advise analyse analyze animate annotate answer apply argue begin continue
    follow reason arrange articulate ask assemble assess assign assume auto brainstorm break build calculate capitalize
    capture categorise categorize change characterize check choose cite clarify classify code collect combine come
    comment compare compile complete compose compute concatenate conclude conduct configure connect consider construct
    contrast contribute convert convince correct count craft create criticize critique debate debug decide declare
    decode decompose deduce define delete deliver demonstrate depict derive describe design detail detect determine
    develop devise diagnose differentiate discover discuss display distinguish divide draft draw edit elaborate
    eliminate encode enhance ensure enter enumerate estimate evaluate examine execute expand experiment explain explore
    express extend extract fetch figure fill filter find fix format form formulate forecast gather generate get give
    group guess help highlight identify illustrate imagine implement improve include incorporate increase infer inform
    insert inspect interpret introduce invent investigate join judge justify label lay lead learn let list locate look
    make map mark match measure mention merge model modify move multiply name narrate negotiate note offer open optimise
    optimize order organise organize outline output paint paraphrase parse perform pick plan play plot point portray
    pose predict prepare present pretend print prioritize process produce program propose prove provide put quantify
    query quote rank rate read rearrange recall recommend reconstruct record reduce refactor refer reflect reformat
    reframe relate remove rename reorder repeat rephrase replace reply report represent research respond restate
    restructure retrieve return reverse rotate review revise reword rewrite role-play round scan score search select
    separate set share shorten show simplify simulate sing sketch solve sort specify split spot start state stop
    structure study style submit substitute subtract suggest sum summarise summarize support suppose swap take talk
    teach tell test think trace track train transform translate trim try turn unscramble update use utilize validate
    verify visualize weigh work write
    """.split()
)
VERB_STEMS = stems(VERBS)

# What nearly any text of its kind says: such words are no gain, and no trace of a prompt. One form stands for all of its stem.
_GENERIC = stems(
    """
    please using used uses user given provide following specific specifically particular certain various different
    several thing kind type example include based sure able need get getting go going good better best new old first
    second third last next three four five time person people someone result output outputting input inputting return
    take value element effective efficiently detailed clear properly correctly possible general overall important main
    primary ensure end every perform allow help question answer tell related works item variable name code program
    function script snippet piece form text part term manner context left remaining total altogether
    """.split()
)

# How an answer is to be, whatever it is about: such words are a gain, but fit anywhere, as verbs do, so that they are no leak.
FIT_ANYWHERE = VERB_STEMS | stems(
    """
    word sentence paragraph line bullet numbered table row column short brief long length tone polite formal informal
    friendly simple plain technical jargon daily everyday life comparison importance advantages disadvantages drawback
    benefit risk limit strength weakness weaknesses mistake common avoid beginner child children year adult reader
    audience student beginning finish conclusion title heading summary criteria criterion argument objection claim
    against choice decision understand understandable effect future past history problem occur happen cause meaning
    society least exactly fewer tense view approach solution error invalid valid empty message raise complexity case
    python java javascript typescript sql html css php ruby bash console edge usage useful small big class home family
    town company employees office worker lives alone never busy woman man today final fact improvement costs library
    external expected happy sad documented handle faster slower version purpose wrong prevent
    """.split()
)

_NUMBERS = {"half": 0.5, "quarter": 0.25, "fourth": 0.25, "fifth": 0.2, "tenth": 0.1}
_NUMBERS |= {"twice": 2, "double": 2, "triple": 3, "dozen": 12}
_FROM_TWO = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "ten twenty thirty forty fifty sixty seventy eighty ninety hundred"
_NUMBERS |= {word: number for number, word in enumerate(_FROM_TWO.split(), start=2)}
_NUMBERS |= {word: 10 * number for number, word in enumerate(_TENS.split(), start=1)}


def numbers(text: str) -> list[float]:
    """The quantities of a text, in figures or words up to a hundred; "one" is none, as it is mostly a pronoun."""
    found = []
    for word in words(text):
        if word[0].isdigit():
            comma = "" if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", word) else "."
            with suppress(ValueError):  # 1.2.3, or digits of other scripts
                found.append(float(word.replace(",", comma)))
        elif word in _NUMBERS:
            found.append(float(_NUMBERS[word]))
    return found


_CODE = re.compile(
    r"(?i)```|\b(?:python|java|javascript|typescript|c\+\+|c#|php|ruby|golang|rust|swift|kotlin|sql|mysql|html|css|bash|shell script|"
    r"regex|regular expression|json|xml|api|algorithm|array|string|function|class|method|loop|boolean|integer|compiler|database|"
    r"query|code|program|script|software|react|django|flask|node\.js|jquery|pandas|numpy|recursion|recursive|linked list|"
    r"binary|hashmap|dictionary|tuple|data structure)s?(?!\w)"
)
_MAKES_CODE = re.compile(
    r"(?i)\A\W*(?:write|create|implement|develop|construct|build|design|generate|fix|debug|give)\s+(?:an?|the|this|some)?\s*"
    r"(?:[\w+#.-]+\s+){0,2}?(?:function|loop|query|array|class|method|regular expression|regex|code|html|css|sql)\b"
)
_TEXT_TO_WRITE = re.compile(
    r"(?i)\A\W*(?:please\s+)?(?:write|compose|create|generate|synthesi[sz]e|draft|craft|tell|make|produce|invent|imagine|prepare|construct|develop|come up "
    r"with)\b(?:[^\w.?!]+[\w'’-]+){0,7}?[^\w.?!]+(?:stor(?:y|ies)|poems?|haikus?|sonnet|limerick|verse|lyrics|song|rap|letters?|essays?|speech|"
    r"e-?mails?|articles?|blog|posts?|tweets?|caption|headlines?|slogans?|taglines?|advert\w*|ad|jingle|reviews?|dialogues?|"
    r"conversation|monologue|scene|paragraphs?|memo|press release|biography|obituary|commentary|cover letter|narrative|tale|fable|jokes?|riddles?|"
    r"note|invitation|toast|announcement|brochure|proposal|description)\b"
)
_QUANTITY = re.compile(
    r"(?i)\bhow (?:many|much|long|far|old|fast|often|tall)\b|\bwhat (?:is|was|are|percent|percentage|fraction)\b|"
    r"\b(?:calculate|find|determine|compute)\b"
)


def domain_of(instruction: str) -> str:
    """The domain of an instruction by its words: ``"code"``, ``"math"`` (two quantities and a question for one),
    ``"writing"`` (a text of a named form) or ``"general"``."""
    if len(set(map(str.lower, _CODE.findall(instruction)))) >= 2 or _MAKES_CODE.match(instruction):
        return "code"
    if len(numbers(instruction)) >= 2 and _QUANTITY.search(instruction) and len(words(instruction)) >= 12:
        return "math"
    return "writing" if _TEXT_TO_WRITE.match(instruction) else "general"
