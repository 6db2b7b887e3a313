"""Self-Instruct: what a model is shown to make up one more instruction.

The facts come from Self-Instruct (arXiv:2212.10560); the wording is ours: the instructions shown are earlier replies, so that one
more of them is what models of a few hundred million parameters go on with.
"""

from __future__ import annotations

from collections.abc import Sequence

from hf_evol.prompts.template import Turns, chat

SYSTEM = (
    "You make up tasks that can be answered in writing, from general knowledge. Each reply is one such task, in one sentence, about "
    "another subject than those before, and nothing else."
)
ASK = "One more task, please."  # "a new task" brings "a new employee" and "a new skill"


def instruction_prompt(shown: Sequence[str]) -> Turns:
    """The turns that ask for one instruction more, with others as the replies before."""
    return chat(ASK, SYSTEM, [(ASK, text) for text in shown])
