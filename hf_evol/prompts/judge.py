"""What a judge is asked about an instruction, two responses or two instructions (paper, "Analyses"; our wording).

As in the evolving prompts, a short system turn and worked examples as turns, one of every verdict, stand before what is to
be judged: a small model follows examples better than rules.
"""

from __future__ import annotations

from hf_evol.prompts.template import Turns, chat

LEVELS = ("very easy", "easy", "medium", "hard", "very hard")  # ``LEVELS.index(level)`` is a level's place, 0 to 4

_DIFFICULTY = (
    "You judge how difficult tasks are. The user sends a task. You do not carry it out. You reply with {reply}, and with nothing "
    "else. What counts is how much knowledge a good answer takes, how many steps and conditions it has, and how exact it must be."
)
_LEVEL = _DIFFICULTY.format(reply="one of five levels: very easy, easy, medium, hard, or very hard")
_SCORE = _DIFFICULTY.format(reply="a number from 0 (anyone can do it at once) to 100 (even experts rarely do it well)")
_RATED = (
    ("Explain how a refrigerator keeps food cold, and name its main parts.", "medium", "45"),
    ("Name a colour.", "very easy", "2"),
    (
        "Prove that every continuous function on a closed interval is uniformly continuous, and show where the proof fails on "
        "an open interval.",
        "very hard",
        "93",
    ),
    ("List three things that salt is used for in a kitchen.", "easy", "20"),
    (
        "Write a Python class for a priority queue whose entries can change their priority in logarithmic time, with tests.",
        "hard",
        "72",
    ),
)

_COMPARISON = (
    "You compare two responses to one task. The user sends the task and both responses. You reply with how Response 1 is to "
    "Response 2: better than, worse than, or equal to; and with nothing else. What counts is whether they are correct, complete, "
    "helpful and clear. Neither their order nor their length counts in itself."
)
_COMPARED = (
    ("Which planet is closest to the Sun?", "Venus is the closest planet to the Sun.", "Mercury.", "worse than"),
    (
        "Write a sentence with the word anchor.",
        "The sailors dropped the anchor in a quiet bay.",
        "An old anchor lay rusting on the beach.",
        "equal to",
    ),
    (
        "How can I keep bread fresh?",
        "Keep it in a closed box at room temperature, or freeze it in slices.",
        "Bread is a food that people have baked for thousands of years.",
        "better than",
    ),
)

_EQUALITY = (
    "You compare two tasks. The user sends both. You reply with one word: Equal, if both put the same constraints and "
    "requirements on the answer and ask with the same depth and breadth; otherwise Different."
)
_EQUATED = (
    (
        "Describe how rain forms.",
        "Describe how rain forms, and explain in three steps why it falls only from some clouds.",
        "Different",
    ),
    ("Write a Python function that counts vowels.", "Create a function in Python which counts the vowels.", "Equal"),
    ("Suggest a gift for a friend.", "Suggest a gift under $20 for a friend who loves old maps.", "Different"),
    ("What are the benefits of walking?", "Which benefits does walking have?", "Equal"),
)


def level_prompt(task: str) -> Turns:
    """The turns that ask for a task's difficulty as one of `LEVELS`."""
    return chat(task, _LEVEL, [(given, level) for given, level, _ in _RATED])


def score_prompt(task: str) -> Turns:
    """The turns that ask for the score of a task's difficulty, from 0 to 100."""
    return chat(task, _SCORE, [(given, score) for given, _, score in _RATED])


def comparison_prompt(task: str, first: str, second: str) -> Turns:
    """The turns that ask which of two responses is better."""
    return chat(_pair(task, first, second), _COMPARISON, [(_pair(*given), verdict) for *given, verdict in _COMPARED])


def equality_prompt(parent: str, evolved: str) -> Turns:
    """The turns that ask whether an evolved instruction asks for more than its parent (WizardLM, arXiv:2304.12244)."""
    shown = [(f"{one}\n\n---\n\n{other}", verdict) for one, other, verdict in _EQUATED]
    return chat(f"{parent}\n\n---\n\n{evolved}", _EQUALITY, shown)


def rewriting_task(instruction: str) -> str:
    """What two evolvers were asked of one seed, for a judge that compares what they made of it."""
    return (
        "Rewrite the task below into a somewhat harder one, or create a rarer one of its kind. It must stay reasonable, and people "
        f"must be able to understand and answer it.\n\n{instruction}"
    )


def task(instruction: str, input: str | None) -> str:
    """What a prompt says of one row: the instruction and, where there is one, the input."""
    return f"{instruction}\n\nInput:\n{input}" if input and input.strip() else instruction


def _pair(task: str, first: str, second: str) -> str:
    return f"Task: {task}\n\nResponse 1: {first}\n\nResponse 2: {second}"


def says_equal(reply: str) -> bool | None:
    """Read the verdict on two instructions: True for equal, False for different, None where the reply is neither."""
    words = reply.strip().strip("*\"'.# \n").lower().split()
    if words and words[0].startswith(("different", "not", "unequal")):
        return False
    return True if words and words[0].startswith("equal") else None
