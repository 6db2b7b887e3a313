"""The judge's prompt for the information-gain rule of elimination (WizardLM, arXiv:2304.12244; our wording)."""

from __future__ import annotations

from hf_evol.prompts.template import Template

INFORMATION_GAIN = Template(
    """\
Compare the two prompts below. They are equal if they put the same constraints and requirements on the answer and \
ask with the same depth and breadth. Reply with one word: Equal, or Different.

### First prompt
{parent}

### Second prompt
{evolved}""",
    ("parent", "evolved"),
)


def says_equal(reply: str) -> bool | None:
    """Read the judge's verdict: True for equal, False for different, None where the reply is neither."""
    words = reply.strip().strip("*\"'.# \n").lower().split()
    if not words:
        return None
    if words[0].startswith(("different", "not", "unequal")):
        return False
    return True if words[0].startswith("equal") else None
