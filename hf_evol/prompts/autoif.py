"""AutoIF: constraints on responses, functions that verify them, and answers under them.

The facts come from AutoIF (arXiv:2406.13542) and the paper's Scenario 2 (arXiv:2412.11231); the wording is ours.
"""

from __future__ import annotations

from hf_evol.prompts.template import Template

AUGMENT = Template(
    """\
Below are instructions about the form of an answer. Write {count} new instructions of this kind.
Each must be about how the answer is written, not about its subject; people must be able to follow it, whatever the \
question is; and a Python function that sees nothing but the answer must be able to check whether it was followed. Each \
must differ from those below and from each other.
Write one instruction a line, begin each line with "- ", and write nothing else.

### Instructions
{seeds}

### New instructions""",
    ("count", "seeds"),
)

VERIFY = Template(
    """\
You are an expert in writing Python functions that check answers.

Here is an instruction about the form of an answer:
{instruction}

Write a Python function named `evaluate` with one argument, the string `response`. It returns True if the response follows \
the instruction, and False otherwise. It may import modules of the standard library, and uses no files and no network.
Then write three test cases: an input string each, and the output that the function must give for it, true or false. Take \
care that the cases are correct.
Reply with nothing but a JSON object of this form, in a fenced block:
```json
{
  "func": "the source of the function, as a JSON string",
  "cases": [
    {"input": "a response", "output": true},
    {"input": "another response", "output": false},
    {"input": "a third response", "output": true}
  ]
}
```"""
)

_ANSWER = Template(
    "Answer the user's query. The answer is correct and helpful, and follows this rule strictly and in every part: {instruction}"
)


def answer_prompt(constraint: str, query: str) -> list[dict[str, str]]:
    """The turns that ask for an answer to a query under a constraint."""
    return [
        {"role": "system", "content": _ANSWER.fill(instruction=constraint)},
        {"role": "user", "content": query},
    ]
