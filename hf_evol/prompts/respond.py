"""The turns that ask for a response to an instruction (paper, "Response generation"; our wording)."""

from __future__ import annotations

from hf_evol.prompts.template import Turns, chat

SYSTEM = "Give a comprehensive and accurate response to the instruction."


def respond_prompt(
    instruction: str, input: str | None, system: str | None = SYSTEM, context: Turns | None = None
) -> Turns:
    """The turns for one row: the instruction, with an ``Input`` line only where the row has an input. A context's own system
    turn stands in place of ours."""
    asked = f"{instruction}\n\nInput: {input}" if input and input.strip() else instruction
    *before, last = chat(asked, None if any(turn["role"] == "system" for turn in context or ()) else system)
    return [*before, *(context or ()), last]
