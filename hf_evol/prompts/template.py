"""Turns for models, and templates that give the text filled in no power over them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Turns = list[dict[str, str]]  # with role and content

_SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Template:
    """A prompt with named slots such as ``{instruction}``, filled in a single pass, so that braces and slots inside a value stay as
    they are. Only ``{lower_case}`` names count as slots."""

    text: str

    @property
    def slots(self) -> set[str]:
        return set(_SLOT.findall(self.text))

    def fill(self, **values: str) -> str:
        return _SLOT.sub(lambda match: values[match[1]], self.text)


def chat(prompt: str, system: str | None = None, examples: Iterable[tuple[str, str]] = ()) -> Turns:
    """The turns of a system turn, worked examples (what is given, and the reply) and a prompt."""
    turns = [{"role": "system", "content": system}] if system else []
    for given, reply in examples:
        turns += [{"role": "user", "content": given}, {"role": "assistant", "content": reply}]
    return [*turns, {"role": "user", "content": prompt}]
