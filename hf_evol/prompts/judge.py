"""What a judge is asked about an instruction or two responses (paper, "Analyses"; our wording)."""

from __future__ import annotations

from hf_evol.prompts.template import Template

LEVELS = ("very easy", "easy", "medium", "hard", "very hard")  # ``LEVELS.index(level)`` is a level's place, 0 to 4

_DIFFICULTY = """\
You judge how difficult instructions are. Read the instruction below, but do not carry it out. Consider how much \
knowledge a good answer takes, how many steps and constraints it has, and how exact it must be.

"""

LEVEL = Template(
    _DIFFICULTY
    + """\
Choose one level: very easy, easy, medium, hard, or very hard. Reply with the level and nothing else.

### Instruction
{task}

### Level""",
    ("task",),
)

SCORE = Template(
    _DIFFICULTY
    + """\
Score its difficulty with a number from 0 (anyone can answer it at once) to 100 (even experts rarely answer it well). \
Reply with the number and nothing else.

### Instruction
{task}

### Score""",
    ("task",),
)

COMPARISON = Template(
    """\
You compare two responses to one instruction. Consider whether they are correct, complete, helpful and clear. Neither \
their order nor their length counts in itself.

### Instruction
{task}

### Response 1
{first}

### Response 2
{second}

### Verdict
Is Response 1 better than, worse than, or equal to Response 2? Reply with "better than", "worse than" or "equal to" and \
nothing else.""",
    ("task", "first", "second"),
)


# What two evolvers were asked of one seed, for a judge that compares what they made of it.
REWRITING = Template(
    """\
Rewrite the prompt below into a somewhat harder one, or create a rarer one of its kind. It must stay reasonable, and people \
must be able to understand and answer it.

{instruction}"""
)


def task(instruction: str, input: str | None) -> str:
    """What a prompt says of one row: the instruction and, where there is one, the input."""
    return f"{instruction}\n\n### Input\n{input}" if input and input.strip() else instruction
