"""What a judge is asked about an instruction, two responses or two instructions (paper, "Analyses"; our wording).

As in the evolving prompts, a short system turn and worked examples as turns, one of every verdict, stand before what is to
be judged: a small model follows examples better than rules.
"""

from __future__ import annotations

from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.template import Turns, chat

LEVELS = ("very easy", "easy", "medium", "hard", "very hard")  # ``LEVELS.index(level)`` is a level's place, 0 to 4

_DIFFICULTY = (
    "You judge how difficult tasks are. The user sends a task. You do not carry it out. You reply with {reply}, and with nothing "
    "else. What counts is how much knowledge a good answer takes, how many steps and conditions it has, and how exact it must be."
)
_LEVEL = _DIFFICULTY.format(reply="one of five levels: very easy, easy, medium, hard, or very hard")
_SCORE = _DIFFICULTY.format(reply="a number from 0 (anyone can do it at once) to 100 (even experts rarely do it well)")
_COMPARISON = (
    "You compare two responses to one task. The user sends the task and both responses. You reply with how Response 1 is to "
    "Response 2: better than, worse than, or equal to; and with nothing else. What counts is whether they are correct, complete, "
    "helpful and clear. Neither their order nor their length counts in itself."
)
_EQUALITY = (
    "You compare two tasks. The user sends both. You reply with one word: Equal, if both put the same constraints and "
    "requirements on the answer and ask with the same depth and breadth; otherwise Different."
)
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
    return chat(asked, _COMPARISON, _EXAMPLES["comparison"])


def equality_prompt(parent: str, evolved: str) -> Turns:
    """The turns that ask whether an evolved instruction asks for more than its parent (WizardLM, arXiv:2304.12244)."""
    return chat(f"{parent}\n\n---\n\n{evolved}", _EQUALITY, _EXAMPLES["equality"])


def rewriting_task(instruction: str) -> str:
    """What two evolvers were asked of one seed, for a judge that compares what they made of it."""
    return (
        "Rewrite the task below into a somewhat harder one, or create a rarer one of its kind. It must stay reasonable, and people "
        f"must be able to understand and answer it.\n\n{instruction}"
    )


def task(instruction: str, input: str | None) -> str:
    """What a prompt says of one row: the instruction and, where there is one, the input."""
    return f"{instruction}\n\nInput:\n{input}" if input and input.strip() else instruction


def says_equal(reply: str) -> bool | None:
    """Read the verdict on two instructions: True for equal, False for different, None where the reply is neither."""
    words = reply.strip().strip("*\"'.# \n").lower().split()
    if words and words[0].startswith(("different", "not", "unequal")):
        return False
    return True if words and words[0].startswith("equal") else None
