"""Turns for models, and templates that give the text filled in no power over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

Turns = list[dict[str, str]]  # with role and content

_SLOT = re.compile(r"\{([a-z_]+)\}")


def slots_of(text: str) -> set[str]:
    """The slots of a text, such as ``{instruction}``: ``{lower_case}`` names alone count as such."""
    return set(_SLOT.findall(text))


def fill(text: str, /, **values: str) -> str:
    """A text with its slots filled in a single pass, so that braces and slots inside a value stay as they are."""
    return _SLOT.sub(lambda match: values[match[1]], text)


def chat(prompt: str, system: str | None = None, examples: Iterable[tuple[str, str]] = ()) -> Turns:
    """The turns of a system turn, worked examples (what is given, and the reply) and a prompt."""
    turns = [{"role": "system", "content": system}] if system else []
    for given, reply in examples:
        turns += [{"role": "user", "content": given}, {"role": "assistant", "content": reply}]
    return [*turns, {"role": "user", "content": prompt}]


def transcript(context: Iterable[Mapping[str, str]]) -> str:
    """Turns as a text that a model reads, not as turns that it takes part in."""
    return "\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in context)


def in_context(prompt: Turns, context: Sequence[Mapping[str, str]] | None) -> Turns:
    """A prompt whose system turn shows the conversation that its last turn belongs to. Small models copy a conversation that
    stands beside the last turn."""
    if not context:
        return prompt
    said = f"What the user sends last belongs to this conversation:\n{transcript(context)}"
    if prompt[0]["role"] != "system":
        return [{"role": "system", "content": said}, *prompt]
    return [{"role": "system", "content": f"{prompt[0]['content']}\n\n{said}"}, *prompt[1:]]
