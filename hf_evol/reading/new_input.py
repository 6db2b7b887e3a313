"""How a reply to `hf_evol.prompts.inputs.input_prompt` is read: an input for an instruction, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hf_evol.columns import OK
from hf_evol.prompts.words import content, words
from hf_evol.reading.evolved import unpack
from hf_evol.reading.faults import is_broken, is_refusal, runs
from hf_evol.reading.replies import strip_thinking

_NAME = 12  # words that a name may have
_LONGER = 2  # so many times the longest example's words at most
_PLACEHOLDER = re.compile(
    r"(?i)<[^<>\n]+>|\[[^\]\n]*\b(?:insert|your|name|text|link)\b|\b(?:no ?input|n/a|https?:|www\.)|\A\W*(?:none|nothing)\W*\Z"
)


def read_input(
    reply: str, instruction: str, noun: str, shown: Sequence[str], finish_reason: str = "stop"
) -> tuple[str | None, str]:
    """The input in a reply, and its status.

    Args:
        reply: the model's raw text.
        instruction: that the input is for.
        noun: which names what was asked for.
        shown: the inputs of the examples.
        finish_reason: ``"length"`` where the token limit ended the reply.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``; ``too_long`` (over
        twice the longest example's words); ``placeholder`` (a link, or a gap to be filled in); ``broken`` (repetition);
        ``repeats`` (half of its words are the instruction's); ``copied`` (half of them, or of its runs of words, are an example's).
    """
    lead = rf"(?i)\A\W*(?:input|(?:(?:the|this|an?) )?(?:given )?{re.escape(noun)}(?: is| are)?)(?:: *|,? (?=[\"“]))"
    text = unpack(re.sub(lead, "", unpack(strip_thinking(reply), shown[0])), shown[0])
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    return text, _fault(text, instruction, shown, finish_reason) or OK


def _fault(text: str, instruction: str, shown: Sequence[str], finish_reason: str) -> str | None:
    if is_refusal(text):
        return "refusal"
    if finish_reason == "length":
        return "cut_off"
    if len(words(text)) > _LONGER * max(len(words(given)) for given in shown):
        return "too_long"
    if _PLACEHOLDER.search(text):
        return "placeholder"
    if is_broken(text, shown[0], True):
        return "broken"
    said = set(content(text))
    if said and 2 * len(said.intersection(content(instruction))) >= len(said):
        return "repeats"
    parts = _parts(text)
    if any(text == given or (parts and 2 * len(parts & _parts(given)) >= len(parts)) for given in shown):
        return "copied"
    return None


def _parts(text: str) -> set[Any]:
    """What a copy has in common: words of a name, runs of words of a text."""
    said = words(text)
    return set(runs(said)) if len(said) > _NAME else set(content(text))
