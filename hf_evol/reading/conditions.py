"""Read the constraints that a model names for a response (constraint back-translation, arXiv:2410.24175)."""

from __future__ import annotations

import re

from hf_evol.prompts.words import content, words
from hf_evol.reading.faults import is_refusal, runs
from hf_evol.reading.fit import META
from hf_evol.reading.forms import is_order, sentences
from hf_evol.reading.replies import strip_thinking

_ITEM = re.compile(r"\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+(.+)")
_TITLE = re.compile(r"\*\*[^*\n]{1,40}\*\*:?\s+|\*\*[^*\n]{1,40}:\*\*\s*")  # "**Tone:** Use …"
_ORDER = re.compile(
    r"(?i)\A(?:do not|don['’]t|never|no|avoid|keep|stay|remain|maintain|speak|sound|adopt|employ|stick)\b"
)
_SHORTEST, _LONGEST = 3, 25  # words


def conditions(reply: str, task: str, response: str) -> list[str]:
    """The items of a list in a reply that are orders of one sentence, each once, and neither say what the task says itself nor
    give away what the response says: four of its words in a row."""
    text = strip_thinking(reply).strip()
    if is_refusal(text):
        return []
    asked, told = set(content(task)), set(runs(words(response))) - set(runs(words(task)))
    found: dict[frozenset[str], str] = {}
    for item in filter(None, map(_ITEM.fullmatch, text.splitlines())):
        said = _TITLE.sub("", item[1], count=1).strip().strip("*").strip()
        own = frozenset(content(said))
        if (
            _SHORTEST <= len(words(said)) <= _LONGEST
            and len(sentences(said)) == 1
            and (is_order(said) or _ORDER.match(said))
            and not META.search(said)
            and not told.intersection(runs(words(said)))
            and not (own and own <= asked)
        ):
            found.setdefault(own, said[0].upper() + said[1:].rstrip(" .;:") + ".")
    return list(found.values())


def says_yes(reply: str) -> bool | None:
    """Yes, no, or None where a reply begins with neither."""
    first = re.match(r"\W*(yes|no)\b", strip_thinking(reply).lower())
    return None if first is None else first[1] == "yes"
