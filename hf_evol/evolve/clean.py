"""Take off what models put around their answer, and say what is wrong with the rest."""

from __future__ import annotations

import re

from hf_evol.columns import OK
from hf_evol.prompts.replies import strip_thinking

_LABEL = r"(?:rewritten|created|new|evolved|final|harder)\s+(?:prompt|instruction|question)"
# "Rewritten Prompt:", "### Rewritten prompt", "**Created prompt**:", "#Rewritten Prompt#:" on their own or in front.
_MARKER = re.compile(
    rf"\s*(?:#{{1,6}}\s*{_LABEL}\s*#{{0,6}}\s*:?\s*(?:\n|\Z)|[#*_\s]*{_LABEL}[#*_\s]*:[#*_\s]*|#{_LABEL}#\s*)",
    re.IGNORECASE,
)
_OPENER = re.compile(
    rf"\s*(?:sure|certainly|of course|here)\b[^\n:]{{0,60}}\b{_LABEL}[^\n:]{{0,20}}:\s*\n", re.IGNORECASE
)
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`", "‘": "’"}

# What only the evolving prompts say; WizardLM's fourth elimination rule.
LEAKED_PHRASES = ("given prompt", "rewritten prompt", "created prompt", "prompt rewriter", "prompt creator")

_REFUSAL = re.compile(
    r"\s*(?:i'?m (?:very |so |really )?sorry|i am sorry|sorry,|i apologi[sz]e|my apologies|unfortunately, i (?:can|am)|"
    r"i (?:can(?:no|')t|am unable to|am not able to|won't) (?:\w+ ){0,3}(?:assist|help|comply|fulfil+|provide|rewrite|create)|"
    r"as an ai\b)",
    re.IGNORECASE,
)


def clean_evolved(text: str) -> str:
    """The evolved instruction in a model's reply.

    Taken off: a leading thinking block, a leading line such as "Sure, here is the rewritten prompt:", a
    leading marker such as "Rewritten Prompt:", a closing marker of the evolving prompt, and quotation marks
    or a plain code fence around the whole. Nothing inside the text is touched.

    Example:
        >>> clean_evolved('#Rewritten Prompt#:\\n"List three \\'small\\' rivers."')
        "List three 'small' rivers."
    """
    text = strip_thinking(text)
    for pattern in (_OPENER, _MARKER):
        if match := pattern.match(text):
            text = text[match.end() :].strip()
    if (match := re.search(rf"\n\s*#{{1,6}}\s*{_LABEL}\s*#{{0,6}}\s*:?\s*\Z", text, re.IGNORECASE)) is not None:
        text = text[: match.start()].strip()
    return _unwrap(text)


def _unwrap(text: str) -> str:
    fence = re.fullmatch(r"```(?:text|markdown|prompt)?\n((?:(?!```).)*)\n```", text, re.DOTALL)
    if fence:
        return fence.group(1).strip()
    close = _QUOTES.get(text[:1])
    inner = text[1:-1]
    if close and len(text) > 2 and text.endswith(close) and text[0] not in inner and close not in inner:
        return inner.strip()
    return text


def is_refusal(text: str) -> bool:
    """Whether a reply begins the way refusals do."""
    return bool(_REFUSAL.match(text))


def evolved_status(evolved: str, parent: str) -> str:
    """The status of a cleaned evolved instruction: ok, empty, unchanged, leak or refusal.

    What the parent already says is no leak, and a parent that begins like a refusal may have a child that does.
    """
    if not evolved:
        return "empty"
    if _squeeze(evolved) == _squeeze(parent):
        return "unchanged"
    lowered, parent_lowered = evolved.lower(), parent.lower()
    if any(phrase in lowered and phrase not in parent_lowered for phrase in LEAKED_PHRASES):
        return "leak"
    if is_refusal(evolved) and not is_refusal(parent):
        return "refusal"
    return OK


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold()
