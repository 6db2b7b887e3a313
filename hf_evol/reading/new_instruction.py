"""How a reply to Self-Instruct's prompt is read (arXiv:2212.10560): one new instruction, and what is wrong with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hf_evol.columns import OK
from hf_evol.prompts.self_instruct import ASK, SYSTEM
from hf_evol.prompts.tables import patterns_of
from hf_evol.prompts.words import TEXTS, content, domain_of, stem, words
from hf_evol.reading.evolved import unpack
from hf_evol.reading.faults import is_broken, is_refusal, languages, runs
from hf_evol.reading.fit import form_fault
from hf_evol.reading.forms import is_instruction
from hf_evol.reading.replies import strip_thinking

LEAST_WORDS, MOST_WORDS = 4, 150  # the paper leaves out what has three words or fewer, or more than 150
_EXAMPLE, _QUESTION = "Explain it.", "What is it?"  # what is asked in English, in the simplest forms
_REPEATS_UP_TO = 30  # words; in longer texts, what is spoken of comes back

_RE = patterns_of(__file__)
_HOLDS_TEXT = re.compile(r"[:\n]\s*\S|[\"“][^\"”]+[\"”]|(?<!\w)['‘][^'’]+['’](?!\w)")
_WITH_ITSELF = re.compile(
    r"(?i)\b(?:between|compare|contrast) (?:(?:an?|the) )?(.{3,}?) (?:and|to|with) (?:(?:an?|the) )?\1\b"
)


def read_instruction(reply: str, shown: Sequence[str], finish_reason: str = "stop") -> tuple[str | None, str]:
    """The instruction in a reply to `hf_evol.prompts.self_instruct.instruction_prompt`, and its status.

    What models put around it is taken off, as by `hf_evol.read_evolved`. The rules that know words are for English, and apply where
    most of what is shown asks for something by its English words.

    Args:
        reply: the model's raw text.
        shown: the instructions that it was shown.
        finish_reason: ``"length"`` where the token limit ended the reply.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``; ``too_short`` (under 4
        words) or ``too_long`` (over 150); ``leak`` (words of the turns that ask); ``broken`` (repetition); ``chatter``;
        ``answered`` (an answer follows); ``not_instruction``; ``needs_input`` (speaks of what it doesn't hold); ``not_text``
        (asks for, or about, what is no text); ``too_many`` (a list of 50 or more); ``negated`` (a condition of what is not there,
        other than a limit of the wording or harm to be avoided); ``personal`` (about the life of whoever answers). Code may be
        given its arguments, make things and go without some means.
    """
    text = unpack(strip_thinking(reply), _EXAMPLE)
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    if is_refusal(text):
        return text, "refusal"
    if finish_reason == "length":
        return text, "cut_off"
    said = words(text)
    if len(said) < LEAST_WORDS or len(said) > MOST_WORDS:
        return text, "too_short" if len(said) < LEAST_WORDS else "too_long"
    if set(runs(said)).intersection(runs(words(f"{SYSTEM} {ASK}"))):
        return text, "leak"
    is_english = 2 * sum(map(is_instruction, shown)) > len(shown)
    is_code = domain_of(text) == "code" or bool(languages(text))
    if is_broken(text, _EXAMPLE, True) or (is_english and not is_code and _repeats(text)):
        return text, "broken"
    return text, (_fault(text, is_code) if is_english else None) or OK


def _fault(text: str, is_code: bool) -> str | None:
    if not text.lstrip("\"“'‘`(")[:1].isalnum() or not is_instruction(text) or _RE.no_sentence.match(text):
        return "not_instruction"
    if (fault := form_fault(text, _QUESTION if text.rstrip("\"”'’ ").endswith("?") else _EXAMPLE)) is not None:
        return fault
    if not is_code and (_RE.no_text.search(text) or (_RE.makes.match(text) and not _is_of_text(text))):
        return "not_text"
    if _RE.lists.search(text) and _RE.of_many.search(text):
        return "too_many"
    if not is_code and _RE.negated.search(_RE.may_be_negated.sub(" ", text)):
        return "negated"
    if _RE.of_the_reader.search(text):
        return "personal"
    needs_more = _RE.given.search(text) or (not is_code and _RE.some.search(text))
    return "needs_input" if needs_more and not _HOLDS_TEXT.search(text) else None


def _is_of_text(text: str) -> bool:
    return bool(_RE.says.search(text) or TEXTS.intersection(map(stem, words(text)[1:])))


def _repeats(text: str) -> bool:
    """Whether a short text says a word twice that it doesn't compare or quote, or compares a thing with itself: "a hero who is a hero"."""
    if _WITH_ITSELF.search(text):
        return True
    if len(words(text)) > _REPEATS_UP_TO or _RE.compares.search(text) or _HOLDS_TEXT.search(text):
        return False
    return any(count > 1 for count in Counter(content(text)).values())


def is_classification(text: str) -> bool:
    """Whether an instruction asks for one of a few known answers, by its English words."""
    return bool(_RE.classifies.search(text))
