"""The prompts that ask for a response to an instruction (paper, "Response generation"; our wording)."""

from __future__ import annotations

from hf_evol.prompts.template import Template

RESPOND = Template("Give a comprehensive and accurate response to the instruction.\n\nInstruction: {instruction}")

RESPOND_WITH_INPUT = Template(
    "Give a comprehensive and accurate response to the instruction.\n\nInstruction: {instruction}\n\nInput: {input}",
    ("instruction", "input"),
)


def respond_prompt(instruction: str, input: str | None) -> str:
    """The prompt for one row: with an ``Input`` line only where the row has an input."""
    if input and input.strip():
        return RESPOND_WITH_INPUT.fill(instruction=instruction, input=input)
    return RESPOND.fill(instruction=instruction)
