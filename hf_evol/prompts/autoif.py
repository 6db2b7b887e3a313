"""AutoIF: constraints on responses, functions that verify them, and answers under them.

The facts come from AutoIF (arXiv:2406.13542) and the paper's Scenario 2 (arXiv:2412.11231); the wording is ours: a short
system turn, worked examples as turns, and what is given last and bare, which models of a few hundred million parameters can
follow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hf_evol.prompts.template import Template, Turns, chat

# Both system turns describe what a reply is, and give no order that could be copied as a rule.
_AUGMENT = Template(
    "The user lists rules about the form of an answer. The reply lists {count} other rules about the form of an answer, one a line, "
    'each after "- ", and nothing else. Such a rule is about how the answer is written and not about its subject, so that any '
    "question can be answered under it, and a program that sees the answer alone can check whether it is kept. No rule comes twice."
)
_VERIFY = (
    "The user gives a rule about the form of an answer. The reply is one block of Python and nothing else. In it, a function "
    "evaluate(response) returns True if the text of the answer keeps the rule, and False if it does not; it uses the standard "
    "library alone, no files and no network. Below it, the list cases has three pairs of a text and what the function returns for it."
)

# Rules that are given, and new ones. What they quote is rare, so that it can be noticed where it is copied.
RULES_SHOWN = (
    (
        "Write the answer as a numbered list of five points",
        "Use no word of more than ten letters",
        'Close with the words "So much for today."',
        "Put a blank line after every sentence",
    ),
    (
        "Write exactly three paragraphs",
        "Begin every sentence with a vowel",
        'Use the word "lantern" twice',
        "Write no more than 60 words",
        "Use no digits and no brackets",
        "Put exactly one word in capital letters",
    ),
)

# A rule, a function that checks it, and cases of it, particular enough to be noticed where they are copied. None imports
# anything: small models use the module and leave the import out.
CHECKS_SHOWN = (
    (
        'End with a line that begins with "Next stop:"',
        """\
def evaluate(response):
    lines = response.strip().splitlines()
    return len(lines) > 0 and lines[-1].startswith("Next stop:")""",
        (
            ("The tram is late today.\nNext stop: the old mill.", True),
            ("Next stop: the old mill.\nThe tram is late today.", False),
            ("Next stop: the library.", True),
        ),
    ),
    (
        "Write at most seven words in each line",
        """\
def evaluate(response):
    lines = response.splitlines()
    return all(len(line.split()) <= 7 for line in lines)""",
        (
            ("Bread needs flour, water and salt.\nBake it.", True),
            ("Bread needs flour, water, salt and some patience.", False),
            ("Bake the bread for an hour.", True),
        ),
    ),
    (
        'Use no word that contains "zz"',
        """\
def evaluate(response):
    words = response.lower().split()
    return all("zz" not in word for word in words)""",
        (
            ("A quiet song filled the hall.", True),
            ("Loud jazz filled the hall.", False),
            ("The singers went home by bus.", True),
        ),
    ),
)

_ANSWER = Template(
    "Answer the user's query. The answer is correct and helpful, and follows this rule strictly and in every part: {instruction}"
)


def augment_prompt(seeds: Sequence[str], count: int) -> Turns:
    """The turns that ask for ``count`` new constraints like the given ones."""
    given, made = map(_listed, RULES_SHOWN)
    return chat(_listed(seeds), _AUGMENT.fill(count=str(count)), [(given, made)])


def verify_prompt(constraint: str) -> Turns:
    """The turns that ask for a function that checks a constraint, and for cases of it."""
    return chat(constraint, _VERIFY, [(rule, python_block(function, cases)) for rule, function, cases in CHECKS_SHOWN])


def python_block(function: str, cases: Sequence[tuple[str, bool]]) -> str:
    """A reply of the form that `verify_prompt` asks for."""
    listed = "\n".join(f"    ({json.dumps(text, ensure_ascii=False)}, {output})," for text, output in cases)
    return f"```python\n{function}\n\n\ncases = [\n{listed}\n]\n```"


def answer_prompt(constraint: str, query: str) -> Turns:
    """The turns that ask for an answer to a query under a constraint."""
    return chat(query, _ANSWER.fill(instruction=constraint))


def _listed(rules: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(rule.split())}" for rule in rules)
