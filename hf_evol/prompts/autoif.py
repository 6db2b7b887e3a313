"""AutoIF: constraints on responses, functions that verify them, and answers under them.

The facts come from AutoIF (arXiv:2406.13542) and the paper's Scenario 2 (arXiv:2412.11231); the wording is ours: a short
system turn, worked examples as turns, and what is given last and bare, which models of a few hundred million parameters can
follow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat, fill

_SAID = table_of(__file__)
RULES_SHOWN = _SAID["rules"]
CHECKS_SHOWN = [(check["rule"], check["function"], check["cases"]) for check in _SAID["checks"]]


def augment_prompt(seeds: Sequence[str], count: int) -> Turns:
    """The turns that ask for ``count`` new constraints like the given ones."""
    given, made = map(_listed, RULES_SHOWN)
    return chat(_listed(seeds), fill(_SAID["augment"], count=str(count)), [(given, made)])


def verify_prompt(constraint: str) -> Turns:
    """The turns that ask for a function that checks a constraint, and for cases of it."""
    return chat(
        constraint, _SAID["verify"], [(rule, python_block(function, cases)) for rule, function, cases in CHECKS_SHOWN]
    )


def python_block(function: str, cases: Sequence[tuple[str, bool]]) -> str:
    """A reply of the form that `verify_prompt` asks for."""
    listed = "\n".join(f"    ({json.dumps(text, ensure_ascii=False)}, {output})," for text, output in cases)
    return f"```python\n{function}\n\n\ncases = [\n{listed}\n]\n```"


def answer_prompt(constraint: str, query: str) -> Turns:
    """The turns that ask for an answer to a query under a constraint."""
    return chat(query, fill(_SAID["answer"], instruction=constraint))


def _listed(rules: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(rule.split())}" for rule in rules)
