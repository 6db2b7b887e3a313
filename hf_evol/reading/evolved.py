"""Read the evolved instruction in a model's reply, and say what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hf_evol.columns import OK
from hf_evol.prompts.languages import is_other_language, language_of
from hf_evol.prompts.tables import patterns_of
from hf_evol.prompts.words import LEAD_WORDS, VERBS, words
from hf_evol.reading.any_language import status_in_any_language, without_lead
from hf_evol.reading.faults import status_of
from hf_evol.reading.forms import OPENS_QUESTION
from hf_evol.reading.replies import strip_thinking

_RE = patterns_of(__file__)
_PREFIX = re.compile(r"[\s#*_>\"“'`\-]{0,12}([^\n:]{1,240}?)[\s*_#\"”]{0,12}(?::(?=\s|[\"“*_`]|\Z)[\s*_#]*|\n)")
# A word that points to what was said before, and the word in front of it: "for it", "of these", "explain that to".
_POINTING = re.compile(r" (\w+ (?:it|them|this|these|those|that(?= (?:to|in|into|for|with|as|from|at) | $)))(?= )")
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`", "‘": "’", "„": "“", "「": "」"}
_FENCED = re.compile(r"(?s)```(?:text|markdown|prompt|plaintext|md)?\n((?:(?!```).)*)\n?```")
_BOLD = re.compile(r"(?s)(\*\*|__)((?:(?!\1).)+)\1")
_ONE_ITEM = re.compile(r"(?:[-*•]|1[.)])\s+([^\n]+)")


def read_evolved(
    reply: str,
    *,
    parent: str,
    prompt: Sequence[dict[str, str]],
    method: str | None = None,
    finish_reason: str = "stop",
    context: Sequence[dict[str, str]] | None = None,
    same_language: bool = False,
) -> tuple[str | None, str]:
    """The evolved instruction in a reply to an evolving prompt, and its status.

    What models put around it is taken off: a reasoning block, lead-ins and labels, headings, quotation marks or a fence
    around the whole, remarks and answers behind it. Nothing inside the text is changed, but a small first letter where the parent
    has a capital one. The rules that know words (instruction verbs, stop words) are for English; with ``same_language``, parents in
    other languages go through rules of their own.

    Args:
        reply: the model's raw text.
        parent: the instruction that was to be evolved.
        prompt: the turns that were sent: what only they can have given is a leak.
        method: the method's name; ``"breadth"`` need not keep the parent's task.
        finish_reason: ``"length"`` where the token limit ended the reply.
        context: the turns before the parent. A text may take words of theirs up, and is a leak where it stands in one of them.
        same_language: for parents in any language, which a text has to keep. Needs the extra ``multilingual``.

    Returns:
        The text (None where the reply holds none) and one of: ``ok``; ``empty``; ``refusal``; ``cut_off``; ``other_language``
        (with ``same_language``, and only where both languages are sure); ``unchanged``; ``broken`` (repetition); ``leak`` (words
        of the prompt or its examples, which the parent lacks); ``chatter`` (talks about the task of rewriting); ``answered``
        (carries the parent out); ``not_instruction``; ``off_topic`` (lost the parent's task or a quantity with its unit; for
        math, its question or quantities); ``near_copy`` (nothing added).

    Example:
        >>> read_evolved("Sure, here's the rewritten prompt: List three rivers of Asia that flow to the Arctic Ocean.",
        ...              parent="List three rivers.", prompt=[{"role": "user", "content": "List three rivers."}])
        ('List three rivers of Asia that flow to the Arctic Ocean.', 'ok')
    """
    text = _begun_as(unpack(strip_thinking(reply), parent), parent)
    if not text:
        return None, "cut_off" if finish_reason == "length" and reply.strip() else "empty"
    rules = status_of
    if same_language and language_of(parent) not in (None, "en"):
        text, rules = unpack(without_lead(text, parent), parent), status_in_any_language
    status = rules(text, parent, prompt, method, finish_reason)
    if same_language and status not in ("refusal", "cut_off") and is_other_language(text, parent):
        status = "other_language"
    return text, _in_context(text, parent, method, context) if status == OK and context else status


def _begun_as(text: str, parent: str) -> str:
    """With a capital letter, if the parent has one and the text begins with a small word that begins requests."""
    first = text.partition(" ")[0]
    small = parent[:1].isupper() and first.islower() and (first in VERBS or OPENS_QUESTION.match(text))
    return text[:1].upper() + text[1:] if small else text


def _in_context(text: str, parent: str, method: str | None, context: Sequence[dict[str, str]]) -> str:
    """The status of a text that is good by itself: what points to the conversation still has to, in a rewriting."""
    said, before = (f" {' '.join(words(part))} " for part in (text, parent))
    if any(said in f" {' '.join(words(turn['content']))} " for turn in context):
        return "leak"
    lost = [found for found in _POINTING.findall(before) if f" {found} " not in said]
    return "off_topic" if lost and method != "breadth" else OK


def unpack(text: str, parent: str) -> str:
    """The text without what stands around it."""
    for _ in range(4):
        before = text
        for _ in range(6):
            inner = _without_lead(unwrap(text.strip()), parent)
            if inner == text:
                break
            text = inner
        text = _without_end(text, parent).strip()
        alone = _ONE_ITEM.fullmatch(text)  # of a list
        if alone and not parent.startswith(text[:2]):
            text = alone[1]
        if text == before:
            break
    return text


def _without_lead(text: str, parent: str) -> str:
    """Without a lead-in, a label or a heading in front, unless the parent begins with the same."""
    found = _PREFIX.match(text) if ":" in text or "\n" in text else None
    if found and text[found.end() :].strip() and not parent.lower().startswith(found[1].lower().strip()):
        lead = found[1].strip()
        said = words(lead)
        only_lead = said and len(said) <= 16 and all(word in LEAD_WORDS or _RE.names.fullmatch(word) for word in said)
        named = _RE.names.search(lead) or said[:1] in (("here",), ("here's",), ("sure",))
        announces = _RE.opens.match(lead) and len(said) <= 40 and found.group().rstrip(' *_#"\n').endswith(":")
        if named and (only_lead or announces):
            return text[found.end() :]
    first, gap, rest = text.partition("\n\n")  # "Sure! I can help with that."
    if (
        gap
        and rest.strip()
        and _RE.opens.match(first)
        and len(words(first)) <= 30
        and not parent.startswith(first[:20])
    ):
        return rest
    return text


def _without_end(text: str, parent: str) -> str:
    """Without remarks, answers and further versions behind the text, unless the parent holds the same mark."""
    if "\n" not in text:
        return text
    for pattern in (_RE.trailing, _RE.remark, _RE.section):
        for found in pattern.finditer(text):
            mark = re.split("[:：]", found.group().strip(" \t\n*_#(["), maxsplit=1)[0].strip().lower()
            kept = any(line.strip(" \t*_#([").lower().startswith(mark) for line in parent.splitlines())
            if text[: found.start()].strip() and not kept:
                text = text[: found.start()].rstrip().rstrip("-*_=").rstrip()
                break
    return text


def unwrap(text: str) -> str:
    """Without a fence, the marks of bold text or quotation marks around the whole."""
    if fence := _FENCED.fullmatch(text):
        return fence[1].strip()
    if bold := _BOLD.fullmatch(text):
        return bold[2].strip()
    close = _QUOTES.get(text[:1])
    if close and len(text) > 2:
        inner, after = text[1:].split(close, 1) if close in text[1:] else (None, "")
        alone = inner is not None and (not after.strip() or after.startswith("\n"))
        if alone and text[0] not in inner and "\n\n" not in inner:
            return inner.strip() + (after if after.strip() else "")
    return text
