"""New constraints from seed constraints (AutoIF, arXiv:2406.13542; the paper's Scenario 2, arXiv:2412.11231)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from datasets import Dataset, Features, Value

from hf_evol import columns as col
from hf_evol.errors import ConfigError, check_counts
from hf_evol.generation.sampling import row_key
from hf_evol.prompts.autoif import RULES_SHOWN, augment_prompt
from hf_evol.prompts.words import STOP_WORDS
from hf_evol.prompts.words import words as english
from hf_evol.reading.faults import is_refusal
from hf_evol.reading.replies import strip_thinking
from hf_evol.transform import Batch, SampledTransform

_NUMBER = r"(?:\(?\d{1,3}(?:[.):]|\\\.)|#\d{1,3}[.):]?)"
_SPACED = rf"[*_]{{0,2}}(?:[-+–—*]|{_NUMBER}|\d{{1,3}}\*\*[.):])[*_]{{0,2}}\s+"
_UNSPACED = r"[•◦▪●‣·]\s*|\d{1,3}(?:、\s*|[.)](?=[^\W\d_]))"
_MARK = re.compile(rf"\A\s*(?:{_SPACED}|{_UNSPACED})")
_BOLD_MARK = re.compile(rf"\A\s*(\*\*|__)({_NUMBER})\s+(?=.*\1)")  # "**1. Title**: rest"
_BOLD = re.compile(r"\A(\*\*|__)(.+?)\1(?!\w)")
_QUOTES = {'"': '"', "“": "”", "`": "`"}
_LEAST_WORDS, _MOST_WORDS = 3, 60  # shorter is no instruction, longer is no single one
_NEAR = 0.8  # share of words in common, of all words of both
_UNSPACED_SCRIPTS = r"\u3040-\u30ff\u3400-\u9fff"  # Japanese and Chinese: each character counts as a word
_WORD = re.compile(rf"[{_UNSPACED_SCRIPTS}]|[^\W{_UNSPACED_SCRIPTS}]+")
# What makes two constraints different ones, however alike their other words: numbers, quoted texts, letters, opposites.
_DECISIVE = re.compile(
    r"\d+(?:[.,]\d+)?|\"[^\"]*\"|“[^”]*”|`[^`]*`|‘[^’]*’(?!\w)|«[^»]*»|「[^」]*」|(?<!\w)'[^']*'(?!\w)|(?<=\bletter )\w\b|"
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|fifty|hundred|once|twice|single|double|"
    r"first|second|third|last|least|most|minimum|maximum|more|fewer|less|than|begins?|starts?|ends?|before|after|not|no|"
    r"never|without|odd|even|upper|lower|uppercase|lowercase)\b"
)
# Says what a function or a test does, or asks for one.
_TOOL = r"(?:function|checker|validator|script|program|test(?: case)?)s?"
_OF_CHECK = re.compile(
    rf"\A\W*(?:(?:the|this|that|an?|your|each|python|`?evaluate`?)\s+)*{_TOOL}\b(?!\s+words?\b)|"
    rf"\b(?:write|create|define|implement|develop|design|build|make|generate|use|add|provide)\s+"
    rf"(?:(?:an?|the|your|some|new|two|three|python|simple|short|small|single)\s+)+{_TOOL}\b|"
    r"\A\W*(?:check|verify|test|validate|determine|assert|confirm)\s+(?:whether|if|that|for|the\s+(?:answer|response|text|output))\b|"
    r"\breturns?\s+(?:true|false)\b.*\b(?:if|when|unless|otherwise)\b|"
    r"\b(?:evaluate\s*\(|def\s+\w+\(|(?:test\s+case|unit\s+test)s?\b|(?:evaluate|evaluation|verification)`?\s+function)",
    re.IGNORECASE,
)
# How English statements and questions begin, and the words by which they may be rules all the same.
_STATES = re.compile(
    r"\A\W*(?:an?|the|i|i['’](?:m|ve|ll|d)|he|she|it|we|they|my|his|her|our|their|its|this|that|these|those|there|who|what|why|"
    r"how|where|when|is|are|was|were)\b",
    re.IGNORECASE,
)
_OF_FORM = re.compile(
    r"\b(?:answers?|respon\w+|repl(?:y|ies)|outputs?|texts?|words?|sentences?|phrases?|clauses?|letters?|vowels?|consonants?|"
    r"alphabet\w*|characters?|syllables?|lines?|paragraphs?|sections?|headings?|titles?|lists?|items?|bullets?|points?|tables?|"
    r"columns?|rows?|digits?|number\w*|numerals?|punctuation|commas?|periods?|dots?|\w*colons?|dash(?:es)?|hyphens?|quot\w+|"
    r"brackets?|parenthes[ei]s|marks?|symbols?|emojis?|spaces?|indent\w*|case|capital\w*|caps|uppercase|lowercase|bold|italics?|"
    r"markdown|html|json|xml|yaml|csv|code|tags?|format\w*|form|length|long\w*|short\w*|style|tone|voice|tense|"
    r"(?:first|second|third)[- ]person|formal|informal|rhym\w*|alliterat\w*|acrostics?|palindromes?|haikus?|limericks?|sonnets?|poems?|poetry|verses?|stanzas?|couplets?|"
    r"nouns?|verbs?|adjectives?|adverbs?|pronouns?|prepositions?|conjunctions?|languages?|english|must|should|cannot|allowed|"
    r"forbidden|required|at (?:least|most)|exactly|more than|fewer than|begin\w*|starts?|ends?|ending|written|spelled)\b",
    re.IGNORECASE,
)
_EXAMPLE = [rule for rules in RULES_SHOWN for rule in rules]
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|(?<!\w)['‘]([^'’]+)['’](?!\w)")


@dataclass(frozen=True, kw_only=True)
class Augment(SampledTransform):
    """Ask a model for new constraints, once a row.

    Input columns:
        ``id``, which decides the sampling noise and nothing else. `augment_requests` makes such rows.

    Output columns:
        ``constraints`` (the lines of the reply, as `read_list` reads them), ``augment_status``: ``ok``, ``refusal``,
        ``empty`` (nothing listed) or the engine's error. A reply that the token limit cuts off loses its last line.

    Args:
        seeds: the constraints to show; 36 in the paper.
        count: how many to ask for at a time; 50 in the paper.
    """

    seeds: Sequence[str]
    count: int = 50

    input_columns: ClassVar[tuple[str, ...]] = (col.ID,)
    output_columns: ClassVar[dict[str, Any]] = {col.CONSTRAINTS: ["string"], col.AUGMENT_STATUS: "string"}
    label: ClassVar[str] = "Augment"

    def __post_init__(self) -> None:
        texts = self.seeds and not isinstance(self.seeds, str) and all(isinstance(text, str) for text in self.seeds)
        if not texts or not all(map(str.strip, self.seeds)):
            raise ConfigError("seeds must be one or more constraints, each a text.")
        check_counts(self, "count")
        super().__post_init__()

    def apply(self, batch: Batch) -> Batch:
        chats = [augment_prompt(self.seeds, self.count) for _ in batch[col.ID]]
        keys = [row_key(self.seed, str(row_id), 0, "augment") for row_id in batch[col.ID]]
        lists, statuses = [], []
        for completion in self.complete(chats, keys):
            reply = strip_thinking(completion.text)
            lines = read_list(reply)[: -1 if completion.finish_reason == "length" else None]
            refused = is_refusal(reply) and not any(map(_MARK.match, reply.splitlines()))
            status = completion.error or ("refusal" if refused else col.OK if lines else "empty")
            lists.append(lines if status == col.OK else [])
            statuses.append(status)
        return {col.CONSTRAINTS: lists, col.AUGMENT_STATUS: statuses}


def augment_requests(n: int) -> Dataset:
    """Rows for `Augment`: ids from ``augment-0`` on."""
    return Dataset.from_dict({col.ID: [f"augment-{place}" for place in range(n)]})


def read_list(reply: str) -> list[str]:
    """The items of a list as models write them: bullets, numbers, bold, or plain lines, one item a line.

    Where some lines bear a list's mark, only those count. Fences and rules are no items. Bold at an item's beginning is the
    list's and taken off; elsewhere it may be what the item is about.

    Example:
        >>> read_list('Sure, here are some:\\n1. **Use no commas.**\\n2) Write "STOP" after each sentence')
        ['Use no commas.', 'Write "STOP" after each sentence']
    """
    lines = [
        _BOLD_MARK.sub(r"\2 \1", line, count=1)
        for line in reply.splitlines()
        if set(line) - set("-=*_|: \t") and not line.lstrip().startswith("```")
    ]
    marked = [line for line in lines if _MARK.match(line)]
    items = (_unquoted(_MARK.sub("", line, count=1).strip()) for line in marked or lines)
    return [_unquoted(_BOLD.sub(r"\2", item, count=1)) for item in items if item]


def _unquoted(text: str) -> str:
    close = _QUOTES.get(text[:1])
    inner = text[1:-1]
    whole = close and len(text) > 2 and text.endswith(close) and text[0] not in inner and close not in inner
    return inner.strip() if whole else text


def new_constraints(lists: Iterable[Sequence[str]], seeds: Sequence[str]) -> tuple[Dataset, Counter[str]]:
    """The constraints worth keeping, each once, and how many lines each reason took.

    Two constraints are near if they have the same numbers, quoted texts, letters and words such as "first", "least" or
    "not", and at least four fifths of all their words in common. The first one stays; seeds come before all others, and
    the rules of the prompt's example before all but seeds. In Chinese and Japanese, each character counts as a word.

    Args:
        lists: the ``constraints`` column of `Augment`.
        seeds: the seed constraints, which are not among the result.

    Returns:
        A dataset with ``id`` (``constraint-0`` and so on) and ``instruction``; and counts of ``heading`` (or a table's row),
        ``refusal``, ``too_short`` (under 3 words), ``too_long`` (over 60), ``about_the_check`` (says what a function or a test
        does, or asks for one, and nothing of the answer), ``not_a_rule`` (an English statement or question that has no
        word about the form of a text), ``repeated``, ``near_repeated``, ``seed``, ``near_seed`` and ``example`` (near the
        prompt's example, or with a text that only the example quotes).
    """
    seen: dict[tuple[str, ...], list[tuple[str, set[str], str, str]]] = defaultdict(list)

    def add(text: str, equal: str, near: str) -> None:
        decisive, squeezed, words = _parts(text)
        seen[decisive].append((squeezed, words, equal, near))

    def find(text: str) -> str | None:
        """The reason that came with an equal text, or with the first that this one is near."""
        decisive, squeezed, words = _parts(text)
        alike = [entry for entry in seen[decisive] if len(words & entry[1]) >= _NEAR * len(words | entry[1])]
        equal = (reason for other, _, reason, _ in alike if other == squeezed)
        return next(equal, alike[0][3]) if alike else None

    for text in seeds:
        add(text, "seed", "near_seed")
    for text in _EXAMPLE:
        add(text, "example", "example")
    quoted = _quoted(_EXAMPLE) - _quoted(seeds)
    kept: list[str] = []
    reasons: Counter[str] = Counter()
    for text in chain.from_iterable(lists):
        reason = _unfit(text) or find(text) or ("example" if quoted & _quoted([text]) else None)
        if reason is None:
            add(text, "repeated", "near_repeated")
            kept.append(text)
        else:
            reasons[reason] += 1
    features = Features({col.ID: Value("string"), col.INSTRUCTION: Value("string")})
    columns = {col.ID: [f"constraint-{place}" for place in range(len(kept))], col.INSTRUCTION: kept}
    return Dataset.from_dict(columns, features=features), reasons


def _unfit(text: str) -> str | None:
    words = len(_WORD.findall(text))
    if text.startswith(("#", "|")) or text.endswith((":", "：")):
        return "heading"
    if is_refusal(text):
        return "refusal"
    if words < _LEAST_WORDS or words > _MOST_WORDS:
        return "too_short" if words < _LEAST_WORDS else "too_long"
    if _OF_CHECK.search(text):
        return "about_the_check"
    states = _STATES.match(text) and not _OF_FORM.search(text)
    return "not_a_rule" if states and sum(word in STOP_WORDS for word in english(text)) > 1 else None


def _quoted(texts: Iterable[str]) -> set[str]:
    """What the texts have in quotation marks."""
    return {"".join(found).strip(" .,!?") for text in texts for found in _QUOTED.findall(_squeezed(text))}


def _squeezed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".!")


def _parts(text: str) -> tuple[tuple[str, ...], str, set[str]]:
    squeezed = _squeezed(text)
    return tuple(sorted(_DECISIVE.findall(squeezed))), squeezed, set(_WORD.findall(squeezed))
