"""Auto Evol-Instruct: one prompt of four steps, and how to read the answers that models really give.

The facts come from Auto Evol-Instruct (arXiv:2406.00770) and the paper's Scenario 3 (arXiv:2412.11231); the wording is
ours.
"""

from __future__ import annotations

import re

from hf_evol.errors import ConfigError
from hf_evol.prompts.evol_instruct import Method
from hf_evol.prompts.template import Template

# "adding only 10 to 20 words" is the paper's limit.
AUTO = Method(
    "auto",
    """\
You make instructions more complex. Work on the given instruction in the four steps below, and begin each part of your \
answer with the step's heading, exactly as it is written here.

Step 1: Methods
List different ways in which this instruction could be made somewhat more complex, so that even well-known AI assistants \
find it harder. Changing its language is not one of them.

Step 2: Plan
Plan how to combine several of these methods into one more complex instruction.

Step 3: Rewriting
Carry out the plan. Add only 10 to 20 words to the given instruction. It must stay reasonable, and people must be able to \
understand and answer it.

Step 4: Final instruction
Review the rewriting for anything unreasonable, mend it, and write the final instruction and nothing else.

### Given instruction
{instruction}""",
    kind="auto",
)

KEYWORDS = """\
Below is a list of ways in which an instruction was made more complex. Name each way by a key phrase of one to four words. \
Reply with the key phrases alone, separated by commas.

### List
{trajectory}

### Key phrases"""

ANALYSE = Template(
    """\
Below are instructions, and what became of each when a model was asked to make it somewhat more complex. Find what went \
wrong: no real gain in complexity, lost facts or data, unreasonable or unanswerable requests, changes of subject, needless \
length, words that don't belong to the instruction, missing results. Name each kind of failure in a line of its own, with \
what in the method may have caused it. Be brief. Where nothing went wrong, say so.

{trajectory}""",
    ("trajectory",),
)

REVISE = Template(
    """\
Below is a prompt that asks a model to make an instruction more complex, and a report of failures that happened with it. \
Revise the prompt so that these failures happen less often. Keep the four steps with their headings, "Step 1:" to "Step 4:", \
of which the last gives nothing but the final instruction; keep the limit of 10 to 20 added words; and keep the mark \
{mark}, which stands for the given instruction, exactly once.
Reply with the revised prompt alone, between <method> and </method>.

### Prompt
{method}

### Report
{report}""",
    ("mark", "method", "report"),
)

_LINE = r"^[ \t>#*_\-]*"
_END = r"[ \t]*(?:[#*_]+[ \t]*:?[ \t]*[#*_]*|[:.\-–][ \t]*[#*_]*|(?=\n)|\Z)"
_STEP = rf"{_LINE}(?:step|part)[ \t]*{{}}\b[ \t]*[:.)\-–]?[ \t]*[#*_]*[^\n:]{{{{0,60}}}}?{_END}"
_NAMED = (
    rf"{_LINE}(?:\d[.)][ \t]*)?[#*_]*final(?:ly)?[ \t]+(?:(?:rewritten|evolved|reviewed|revised|complex)[ \t]+)?"
    rf"(?:instruction|prompt|version|question|rewritten){_END}"
)
_FLAGS = re.IGNORECASE | re.MULTILINE
_STEPS = {number: re.compile(_STEP.format(number), _FLAGS) for number in (1, 2, 3, 4)}
_FINAL = re.compile(_NAMED, _FLAGS)
# "Step 4: Name two rivers." has its text where others have the step's name.
_INLINE = re.compile(rf"{_LINE}step[ \t]*4[ \t]*:[ \t]*((?!.*\b(?:final|review|rewrit|instruction)).+)", re.IGNORECASE)
_ITEM = re.compile(r"^[ \t]*(?:[-*•+]|\(?\d{1,2}[.):])[ \t]+(.+?)[ \t]*$", re.MULTILINE)


def final_instruction(answer: str) -> str | None:
    """What follows the last heading of the fourth step; None where there is no such heading.

    Headings are taken as models write them: in any case, bold or not, "Final" or "Finally", with or without a number or
    a colon, on a line of their own or in front of the text.

    Example:
        >>> final_instruction("**Step 1**: …\\n**step 4 - Finally Rewritten Instruction:** Name two rivers.")
        'Name two rivers.'
    """
    headings = [match for pattern in (_STEPS[4], _FINAL) for match in pattern.finditer(answer)]
    if not headings:
        return None
    last = max(headings, key=lambda match: match.end())
    text = answer[last.end() :].strip()
    if not text and (inline := _INLINE.match(last.group())):
        return inline.group(1).strip()
    return re.sub(r"^[#*_]{2,}[ \t]*\n", "", text).strip()


def trajectory(answer: str) -> list[str]:
    """The ways listed under the first step, one string each; without the list's marks."""
    first = _STEPS[1].search(answer)
    start = first.end() if first else 0
    ends = [match.start() for number in (2, 3, 4) if (match := _STEPS[number].search(answer, start))]
    part = answer[start : min(ends)] if ends else answer[start:] if first else ""
    return [re.sub(r"[*_`]{1,3}", "", item).strip() for item in _ITEM.findall(part)]


def revised_method(reply: str, name: str) -> Method | None:
    """The method in a reply to `REVISE`; None where it lacks the mark of the instruction or a step's heading."""
    found = re.search(r"<method>(.*?)</method>", reply, re.DOTALL | re.IGNORECASE)
    text = (found[1] if found else reply).strip()
    text = re.sub(r"\A```[a-z]*\n(.*)\n```\Z", r"\1", text, flags=re.DOTALL)
    if text.count("{instruction}") != 1 or not all(step.search(text) for step in _STEPS.values()):
        return None
    try:
        return Method(name, text, kind="auto")
    except ConfigError:  # other marks in braces
        return None
