"""What a judge is asked about an instruction, two responses or two instructions (paper, "Analyses"; our wording).

As in the evolving prompts, a short system turn and worked examples as turns, one of every verdict, stand before what is to
be judged: a small model follows examples better than rules.
"""

from __future__ import annotations

from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat

LEVELS = ("very easy", "easy", "medium", "hard", "very hard")  # ``LEVELS.index(level)`` is a level's place, 0 to 4

_SAID = table_of(__file__)
_LEVEL, _SCORE = (_SAID["difficulty"].format(reply=_SAID[asked]) for asked in ("level", "score"))
_EXAMPLES = EXAMPLES["judge"]


def level_prompt(task: str) -> Turns:
    """The turns that ask for a task's difficulty as one of `LEVELS`."""
    return chat(task, _LEVEL, _EXAMPLES["level"])


def score_prompt(task: str) -> Turns:
    """The turns that ask for the score of a task's difficulty, from 0 to 100."""
    return chat(task, _SCORE, _EXAMPLES["score"])


def comparison_prompt(task: str, first: str, second: str) -> Turns:
    """The turns that ask which of two responses is better."""
    asked = f"Task: {task}\n\nResponse 1: {first}\n\nResponse 2: {second}"
    return chat(asked, _SAID["comparison"], _EXAMPLES["comparison"])


def equality_prompt(parent: str, evolved: str) -> Turns:
    """The turns that ask whether an evolved instruction asks for more than its parent (WizardLM, arXiv:2304.12244)."""
    return chat(f"{parent}\n\n---\n\n{evolved}", _SAID["equality"], _EXAMPLES["equality"])


def rewriting_task(instruction: str) -> str:
    """What two evolvers were asked of one seed, for a judge that compares what they made of it."""
    return f"{_SAID['rewriting']}\n\n{instruction}"


def task(instruction: str, input: str | None) -> str:
    """What a prompt says of one row: the instruction and, where there is one, the input."""
    return f"{instruction}\n\nInput:\n{input}" if input and input.strip() else instruction


def says_equal(reply: str) -> bool | None:
    """Read the verdict on two instructions: True for equal, False for different, None where the reply is neither."""
    words = reply.strip().strip("*\"'.# \n").lower().split()
    if words and words[0].startswith(("different", "not", "unequal")):
        return False
    return True if words and words[0].startswith("equal") else None
