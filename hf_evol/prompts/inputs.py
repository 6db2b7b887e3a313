"""What a model is shown to make up the input that an instruction needs (Self-Instruct, arXiv:2212.10560).

From the paper comes that, where a task has a few known answers, its input is made up for one of them, so that not all get the same. The
wording and the examples of ``inputs.yaml`` are ours. Models of a few hundred million parameters carry a task out that they are shown, and make
up good names and poor texts: a name is asked for without its task.
"""

from __future__ import annotations

import random

from hf_evol.prompts.tables import table_of
from hf_evol.prompts.template import Turns, chat
from hf_evol.prompts.words import words

_READ = table_of(__file__)
# By noun, the examples: names, and pairs of a task and a text.
NAMES, TEXTS = (
    {noun: kind["examples"] for kind in _READ[form] for noun in kind["words"].split()} for form in ("names", "texts")
)
_SHOWN = 6
_UNCOUNTED = frozenset("code data feedback guidance information software food statistics".split())


def name_prompt(noun: str, pick: random.Random) -> tuple[Turns, list[str]]:
    """The turns that ask for any name of a kind, and the names that they show, drawn."""
    return _prompt(_ask(noun), [(_ask(noun), name) for name in NAMES[noun]], pick)


def text_prompt(instruction: str, noun: str, answer: str | None, pick: random.Random) -> tuple[Turns, list[str]]:
    """The turns that ask for what an instruction is about, of which its answer is to be the given one, if any; and the texts that
    they show, drawn."""
    if answer:
        examples = [(_ask(of, task, label), text) for of, task, label, text in _READ["labelled"]]
    else:
        examples = [(_ask(_named(task), task), text) for task, text in TEXTS[noun].items()]
    return _prompt(_ask(noun, instruction, answer), examples, pick)


def _prompt(asked: str, examples: list[tuple[str, str]], pick: random.Random) -> tuple[Turns, list[str]]:
    shown = pick.sample(examples, min(_SHOWN, len(examples)))
    return chat(asked, _READ["system"], shown), [text for _, text in shown]


def _named(task: str) -> str:
    """The noun of an example's task that its text is one of."""
    return next(word for word in words(task) if task in TEXTS.get(word, ()))


def _ask(noun: str, task: str | None = None, answer: str | None = None) -> str:
    is_plural = noun.endswith("s") and not noun.endswith("ss")
    article = "some" if noun in _UNCOUNTED or is_plural else "an" if noun[0] in "aeiou" else "a"
    answered = f" The right answer to it is: {answer}." if answer else ""
    return f"Give me {article} {noun}" + (f" for this task.{answered}\n\n{task}" if task else ".")
