"""How constraints are worded and joined to an instruction, by the lists of ``constraints.yaml``; and how a model is asked for those
that a response meets, and whether it meets one (constraint back-translation, arXiv:2410.24175; our wording)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hf_evol.prompts.examples import EXAMPLES
from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat, fill

Pick = Callable[[Sequence[Any]], Any]  # one of several, by keyed noise

_LISTS = table_of(__file__)
_ASKED = {group: re.compile(pattern, re.IGNORECASE) for group, pattern in _LISTS["asked"].items()}
GROUPS = tuple(group for group in _ASKED if group != "verse")
CODE_LINE = re.compile(
    "|".join(pattern.replace("(?i)", "(?i:", 1) + ")" * pattern.startswith("(?i)") for pattern in _LISTS["code_line"])
)
ALIKE, ALIKE_IN_REASONING = _LISTS["alike"], _LISTS["alike_in_reasoning"]
_SMALL = "zero one two three four five six seven eight nine ten".split()
_GIVES_DATA = re.compile(r"\n|:\s[^\n]*\Z")  # and ends with it, perhaps
_ENDS = ".!?…;\"'”’)`>}]"
_MANY = 3  # so many constraints, or more, may be listed


class Construct(NamedTuple):
    """A construct of code, as ``constraints.yaml`` explains it."""

    what: str
    pattern: str
    said: str
    instead: str | None = None
    only_where: str | None = None
    never_asked: bool = False


NO_KEYWORDS = frozenset(_LISTS["no_keywords"].split())
CONSTRUCTS = tuple(Construct(**entry) for entry in _LISTS["constructs"])
_CALLED = {construct.pattern: construct.what for construct in CONSTRUCTS}


def asks_for(group: str, instruction: str) -> bool:
    """Whether an instruction says something itself of what constraints of this group are about; or asks for ``verse``."""
    return group in _ASKED and _ASKED[group].search(instruction) is not None


def worded(constraint: Any, pick: Pick) -> str:
    """A `hf_evol.constraints.constraint.Constraint` as a sentence."""
    bound, parameters, least, most = constraint.bound, constraint.parameters, constraint.at_least, constraint.at_most
    opens = constraint.kind == "first_words" and parameters["paragraph"] == 1
    number = least if most is None or bound == "exactly" else most
    shown = {name: str(value) for name, value in parameters.items()} | {"least": str(least), "most": str(most)}
    shown["n"] = _SMALL[number] if number in range(len(_SMALL)) else str(number)
    shown["what"] = _CALLED.get(parameters.get("pattern"), "")
    if bound == "none":
        shown["what"] = re.sub(r"\Aan? (.*)", r"\1s", shown["what"])  # no `for` loops
    shown["options"] = " or ".join(f'"{option}"' for option in parameters.get("options", ()))
    return fill(pick(_LISTS["wordings"]["opening" if opens else constraint.kind][bound]), **shown)


def joined(instruction: str, constraints: Sequence[str], pick: Pick) -> str:
    """The instruction with its constraints: as sentences behind it (before it, where it ends with a colon), or as a list."""
    text = instruction.rstrip()
    given = _GIVES_DATA.search(text)
    if text.endswith(":"):
        form = "before"
    elif len(constraints) >= _MANY and pick([True, False]):
        form = "list"
    else:
        form = "below" if given else "behind"
    if form != "before" and not given and text[-1] not in _ENDS:
        text += "."
    said = "\n".join(f"- {one}" for one in constraints) if form == "list" else " ".join(constraints)
    return fill(pick(_LISTS["joints"][form]), instruction=text, constraints=said)


def naming_prompt(task: str, response: str) -> Turns:
    """The turns that ask which constraints a response meets."""
    return chat(f"Task: {task}\n\nResponse: {response}", _LISTS["name"], EXAMPLES["constraints"]["name"])


def verifying_prompts(response: str, constraint: str) -> tuple[Turns, Turns]:
    """The turns that ask whether a response meets a constraint, and whether it breaks it. A model that says yes to all says it to
    both."""
    asked = f"Response: {response}\n\nCondition: {constraint}\n\nDoes the response"
    meets, breaks = (
        chat(f"{asked} {does} the condition?", _LISTS["verify"], EXAMPLES["constraints"]["verify"])
        for does in ("meet", "break")
    )
    return meets, breaks
