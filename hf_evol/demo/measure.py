"""Measure the embedded model on the bundled seeds, and write the figures into its card.

    python -m hf_evol.demo.measure

Measured in each of three rounds: the share of rows that end ``ok``; for in-depth rewritings, the share that
keeps at least half of the parent's content words, and the share whose added words fit the method; for in-breadth
rewritings, the share that stays in the parent's subject family.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from hf_evol.demo.corpus import Corpus
from hf_evol.evolve.eliminate import STOP_WORDS
from hf_evol.evolve.evol_instruct import EvolInstruct
from hf_evol.formats import load_seeds, to_instructions
from hf_evol.generation.models import EMBEDDED, EMBEDDED_PATH
from hf_evol.transform import map

# Bundled seed set: the methods that the paper uses for its kind.
METHODS_OF = {"general": "alpaca", "gsm8k": "gsm8k", "code": "code"}
ROUNDS = 3

# Words one of which an addition by the method holds.
_FITS = {
    "constraint": r"must|only|least|most|exactly|under|more|not|without|avoid|limit|keep|include|contain|shorter|however|kept",
    "deepen": r"why|how|explain|compare|discuss|examine|explore|also|addition|further",
    "concretize": r"\d|specific|specifically|concrete|example|each|case",
    "reasoning": r"steps?|first|then|finally|reason(ing)?|thinking|before",
}


def content_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - STOP_WORDS


def fits(method: str, parent: str, child: str) -> bool:
    """Whether a word that the child has and the parent lacks is one of the method's, or the child's new tail is."""
    tail = child[len(parent) :] if child.startswith(parent) else " ".join(set(child.split()) - set(parent.split()))
    return re.search(rf"\b(?:{_FITS[method]})", tail.lower()) is not None


def judge_rewriting(method: str, parent: str, child: str) -> bool | None:
    """Whether an ok rewriting does what its method asks; None for a breadth row whose parent names no family."""
    if method == "breadth":
        family = Corpus.family_of_text(parent)
        return None if family is None else Corpus.family_of_text(child) == family
    words = content_words(parent)
    return len(words & content_words(child)) >= len(words) / 2 and fits(method, parent, child)


def measure(model: str = EMBEDDED) -> dict[str, list[dict[str, Any]]]:
    """One record a round for each bundled seed set: rows, ok, and (good, judged) by method."""
    results = {}
    for kind, methods in METHODS_OF.items():
        seeds = to_instructions(load_seeds(f"demo/{kind}"))
        evolved = map(seeds, EvolInstruct(model, methods=methods, rounds=ROUNDS, journal=False), desc=f"Evolve {kind}")
        rounds = [{"rows": len(seeds), "ok": 0, "methods": defaultdict(lambda: [0, 0])} for _ in range(ROUNDS)]
        for entry in (entry for history in evolved["history"] for entry in history):
            record = rounds[entry["round"] - 1]
            if entry["status"] != "ok":
                continue
            record["ok"] += 1
            verdict = judge_rewriting(entry["method"], entry["parent"], entry["instruction"])
            if verdict is not None:
                record["methods"][entry["method"]][0] += verdict
                record["methods"][entry["method"]][1] += 1
        results[kind] = rounds
    return results


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The figures as a Markdown table."""
    names = ("constraint", "deepen", "concretize", "reasoning", "breadth")
    lines = [
        f"| Seeds | Round | Rows | ok | {' | '.join(names)} |",
        f"| --- | ---: | ---: | ---: |{' ---: |' * len(names)}",
    ]
    for kind, rounds in results.items():
        for number, record in enumerate(rounds, 1):
            pairs = [record["methods"].get(name, (0, 0)) for name in names]
            cells = [f"{good} of {judged}" if judged else "–" for good, judged in pairs]
            lines.append(f"| {kind} | {number} | {record['rows']} | {record['ok']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_card(results: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Write the model's README.md from its training figures and these results."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    last = training["loss"][-1]
    text = _CARD.format(
        table=table(results), last_loss=last["loss"], **{k: v for k, v in training.items() if k != "loss"}
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


_CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded model of hf_evol

A Llama of {parameters:,} parameters with a tokenizer and a chat template of its own. It is for trying `hf_evol` without a
network, not for making data: it adds stock phrases to an instruction and answers with empty ones.

Trained from nothing by `python -m hf_evol.demo.train`, on text that `hf_evol.demo.corpus` generates; no dataset and no
other model was used, and the bundled seeds are not in its training text. {steps:,} steps, {tokens:,} tokens,
{minutes} minutes on a {hardware} with torch {torch}, seed {seed}; the mean loss of the last hundred logged steps is
{last_loss} nats per learned token (`training.json` has the curve).

## On the bundled seeds

Rows that end `ok` in each round, and, of these, those whose rewriting does what its method asks: an in-depth one keeps
at least half of its parent's content words and adds words that fit the method, an in-breadth one names a thing of its
parent's subject family (rows whose parent names none are not counted). Made by `python -m hf_evol.demo.measure`.

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=EMBEDDED, help="a folder; by default the bundled model, whose card is written"
    )
    model = parser.parse_args().model
    results = measure(model)
    print(table(results))
    if model == EMBEDDED:
        write_card(results, EMBEDDED_PATH)


if __name__ == "__main__":
    main()
