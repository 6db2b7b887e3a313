"""Fill prompt templates without giving user text any power over them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from hf_evol.errors import ConfigError

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

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """The template's own text between its slots, stripped, without empty pieces."""
        pieces = _SLOT.split(self.text)[::2]
        return tuple(piece.strip() for piece in pieces if piece.strip())


def chat(prompt: str) -> list[dict[str, str]]:
    """A chat of one user turn, in the ``messages`` format."""
    return [{"role": "user", "content": prompt}]
