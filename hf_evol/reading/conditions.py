"""Read the constraints that a model names for a response (constraint back-translation, arXiv:2410.24175)."""

from __future__ import annotations

import re

from hf_evol.prompts.words import content, words
from hf_evol.reading.faults import is_refusal, runs
from hf_evol.reading.fit import META
from hf_evol.reading.forms import is_order, sentences
from hf_evol.reading.replies import strip_thinking

_ITEM = re.compile(r"\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+(.+)")
_TITLE = re.compile(r"\A\*\*[^*\n]{1,40}(?::\*\*|\*\*:)\s+")  # "**Tone:** Use …"
_ORDER = re.compile(
    r"(?i)\A(?:do not|don['’]t|never|no|avoid|keep|stay|remain|maintain|speak|sound|adopt|employ|stick)\b"
)
_SHORTEST, _LONGEST = 3, 25  # words


def conditions(reply: str, task: str, response: str, finish_reason: str = "stop") -> list[str]:
    """The items of a list in a reply that are orders of one sentence, and of which none says mostly what the task or an earlier one
    says, or gives away what the response says: four of its words in a row. Of a reply that was cut off, the last line is left out."""
    text = strip_thinking(reply).strip()
    lines = text.splitlines()[: -1 if finish_reason == "length" else None]
    if is_refusal(text):
        return []
    told = set(runs(words(response))) - set(runs(words(task)))
    known, found = [frozenset(content(task))], list[str]()
    for item in filter(None, map(_ITEM.fullmatch, lines)):
        said = re.sub(r"\*\*?|`", "", _TITLE.sub("", item[1].strip())).strip()
        if said[:1] in '"“' and said.rstrip(" .!")[-1:] in '"”':
            said = said[1:].rstrip(" .!")[:-1]
        said = said.rstrip(" .;:!…").strip()
        own = frozenset(content(said))
        if (
            _SHORTEST <= len(words(said)) <= _LONGEST
            and said.isprintable()
            and "<|" not in said
            and not said.endswith("?")
            and len(sentences(said)) == 1
            and (is_order(said) or _ORDER.match(said))
            and not META.search(said)
            and not told.intersection(runs(words(said)))
            and not any(2 * len(own & other) >= max(1, len(own)) for other in known)
        ):
            known.append(own)
            found.append(f"{said[0].upper()}{said[1:]}.")
    return found


def says_yes(reply: str) -> bool | None:
    """Yes, no, or None where the first line says neither or both."""
    first = next(iter(strip_thinking(reply).strip().lower().splitlines()), "")
    said = set(re.findall(r"\b(?:yes|no)\b", first))
    return said == {"yes"} if len(said) == 1 else None
