"""Turns for models, and templates that give the text filled in no power over them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hf_evol.errors import ConfigError

Turns = list[dict[str, str]]  # with role and content

_SLOT = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Template:
    """A prompt with named slots such as ``{instruction}``.

    Slots are filled in a single pass over the template's own text, so that braces, slots or template
    syntax inside a filled-in value stay as they are. Only ``{lower_case}`` names count as slots: other
    braces in the template are plain text.

    Args:
        text: the prompt with its slots.
        slots: the names that ``text`` must contain, each at least once, and no others.

    Raises:
        ConfigError: the slots in ``text`` are not exactly ``slots``.

    Example:
        >>> Template("Say {what}.", slots=("what",)).fill(what="{hello}")
        'Say {hello}.'
    """

    text: str
    slots: tuple[str, ...] = ("instruction",)

    def __post_init__(self) -> None:
        found = set(_SLOT.findall(self.text))
        if found != set(self.slots):
            raise ConfigError(
                f"A prompt template has the slots {sorted(found)}; it needs exactly {sorted(self.slots)}. "
                f"The template begins: {self.text[:80]!r}"
            )

    def fill(self, **values: str) -> str:
        """Return the prompt; ``values`` gives one string for each slot."""
        return _SLOT.sub(lambda match: values[match.group(1)], self.text)


def chat(prompt: str, system: str | None = None, examples: Iterable[tuple[str, str]] = ()) -> Turns:
    """The turns, in the ``messages`` format, of a system turn, worked examples (what is given, and the reply) and a prompt."""
    turns = [{"role": "system", "content": system}] if system else []
    for given, reply in examples:
        turns += [{"role": "user", "content": given}, {"role": "assistant", "content": reply}]
    return [*turns, {"role": "user", "content": prompt}]
