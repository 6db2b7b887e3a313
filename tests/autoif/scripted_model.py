"""What models reply in the AutoIF scenario, good, flawed and hostile, for the `ChatServer` of the engine's tests.

A reply depends on the request's prompt and seed alone.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

from attacks import EVIL

from hf_evol.prompts.autoif import augment_prompt, python_block, verify_prompt

# A constraint, the body of its function, a response that follows it and one that doesn't.
FAMILIES: list[tuple[str, str, str, str]] = [
    ("Write the whole answer in capital letters", "return response.upper() == response", "ALL OF IT.", "Not all of it."),
    ("Write the whole answer in lower case", "return response.lower() == response", "all of it.", "Not all of it."),
    ("Do not use any commas in the answer", "return ',' not in response", "One and two.", "One, and two."),
    ("Begin the answer with the word 'Indeed'", "return response.startswith('Indeed')", "Indeed, so it is.", "So it is."),
    ("End the answer with a question mark", "return response.rstrip().endswith('?')", "Is it so?", "It is so."),
    ("Answer with a list of bullet points", "lines = response.strip().splitlines()\n    return all(line.startswith('- ') for line in lines)", "- One\n- Two", "One\nTwo"),
    *((f"Use exactly {n} words", f"return len(response.split()) == {n}", " ".join(["word"] * n), "two words") for n in range(3, 20)),
    *((f"Do not use the letter '{c}'", f"return '{c}' not in response.lower()", "mm", f"{c} {c}") for c in "aeiouzxqw"),
    *((f"Write exactly {n} sentences", f"import re\n    return len(re.findall(r'[.!?](?:\\s|$)', response)) == {n}", "One. " * n, "None") for n in range(2, 12)),
]  # fmt: skip
BY_TEXT = {text.casefold(): family for family in FAMILIES for text in family[:1]}


def reply(body: dict[str, Any]) -> dict[str, Any]:
    """The choice that differs from the server's usual one."""
    prompt, step = body["messages"][-1]["content"], step_of(body)
    pick = random.Random(f"{body.get('seed')}|{prompt}")
    if step == "augment":
        text = _constraints(pick)
    elif step == "verify":
        text = _functions(prompt, pick)
    elif asked := re.search(r"follows this rule .*?: (.*)$", body["messages"][0]["content"], re.MULTILINE):
        text = _answer(asked[1], pick)
    else:  # the engine asks whether anyone is there
        return {}
    return {"message": {"role": "assistant", "content": text}}


def step_of(body: dict[str, Any]) -> str | None:
    """Whether a request asks for constraints (``augment``) or for a function (``verify``)."""
    before = body["messages"][1:-1]  # the worked examples
    return next(
        (
            name
            for name, turns in (("augment", augment_prompt(["x"], 1)), ("verify", verify_prompt("x")))
            if before == turns[1:-1]
        ),
        None,
    )


def _constraints(pick: random.Random) -> str:
    if pick.random() < 0.05:
        return "I'm sorry, but I can't help with that."
    lines = [family[0] for family in pick.sample(FAMILIES, 15)]
    lines += [
        lines[0],
        lines[1].upper(),
        lines[2] + ".",
        "Be good",
        "word " * 70,
        "Respond with only emojis {and} ```code```",
    ]
    style = pick.choice(["- {}", "* {}", "{n}. {}", "{n}) **{}**", "- **{}**", "{}"])
    listed = [style.format(line, n=n) for n, line in enumerate(lines, 1)]
    return "\n".join(
        ["Here are some new instructions:", *listed] if style != "{}" else ["## New instructions", *listed]
    )


def _functions(asked: str, pick: random.Random) -> str:
    _, rule, good, bad = BY_TEXT.get(
        asked.casefold().rstrip("."), (asked, "return len(response) > 3", "long enough", "no")
    )
    source = f"def evaluate(response):\n    {rule}"
    cases = [
        {"input": good, "output": True},
        {"input": bad, "output": False},
        {"input": good, "output": pick.choice([True, "true"])},
    ]
    kind = pick.random()
    if kind < 0.1:
        source = f"def evaluate(response):\n    return not bool({rule.split('return ')[-1]})"
    elif kind < 0.15:
        source = "def evaluate(response)\n    return True"
    elif kind < 0.25:
        source = pick.choice(list(EVIL.values()))
    elif kind < 0.255:
        source = "def evaluate(response):\n    import re\n    return bool(re.match(r'(a+)+$', 'a' * 64 + '!'))"
    elif kind < 0.33:
        return "I would check it with a regular expression, but I can't be sure."
    if pick.random() < 0.5:
        block = python_block(source, [(case["input"], case["output"]) for case in cases])
        bare = block.removeprefix("```python\n").removesuffix("\n```")
        return pick.choice([block, f"Here it is:\n\n{block}\nI hope it helps!", bare])
    data = json.dumps({"func": source, "cases": cases}, indent=2)
    if kind > 0.9:
        data = data.replace("\\n", "\n")  # raw line breaks
    elif kind > 0.8:
        data = data.replace("\n  ]", ",\n  ]")  # a trailing comma
    return pick.choice(["```json\n{}\n```", "Here it is:\n\n```json\n{}\n```\nI hope it helps!", "{}"]).replace(
        "{}", data
    )


def _answer(asked: str, pick: random.Random) -> str:
    family = BY_TEXT.get(asked.casefold().rstrip("."))
    if family is None or pick.random() < 0.3:
        return "The sun, they say, is a star. I am not sure of it!"
    return family[2]
